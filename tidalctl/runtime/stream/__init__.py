"""The streaming engine: weights arrive, in the order of their first use and checked, while the function imports and computes.

`engine` brings groups of weights in and lets compute wait for one (it knows no device), `mapped` is the device of the CPU and `cuda`
that of GPUs, fed by `direct` reads or the page cache; `gate` makes modules wait for what they own, and `operators` whatever else reads
a weight. An `arrival` is one state's weights on their way to a GPU, and `weights` is all of that over one bundle.
"""
