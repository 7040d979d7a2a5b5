"""The streaming engine: weights arrive, in the order of their first use and checked, while the function imports and computes.

`engine` brings groups of weights in and lets compute wait for one (it knows no device), `mapped` is the
device of the CPU, `gate` makes modules wait for what they own, and `weights` is all of that over one bundle.
"""
