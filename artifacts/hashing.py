"""The hashes that a start checks with: one that is hard to forge for code, one that costs next to nothing for weights.

Code is executed, so that its digest must not be anyone's to match: BLAKE3, which takes a core less than half of sha256's time.
Weights are gigabytes, and what is looked for while they stream is damage: cut, torn, flipped, replaced. XXH3 tells that with 128 bits
at the speed of memory, where BLAKE3 took half a core-second of a start on two cores. It keeps out nobody who makes weights to match:
that is what the sha256 of each weight and each file is for, which `run --verify full` and `verify` compare.
"""

from blake3 import blake3
from xxhash import xxh3_128


def code_hasher() -> blake3:
    """An empty one, which lets go of the interpreter's lock while it works and keeps to the thread that calls it."""
    return blake3(max_threads=1)


def weight_hasher(data: bytes = b"") -> xxh3_128:
    """One that holds `data`, and lets go of the interpreter's lock while it works."""
    return xxh3_128(data)
