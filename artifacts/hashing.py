"""The hash that weights are checked with in every start.

BLAKE3 is as hard to forge as sha256 and takes a core less than half the time: on a machine with two cores the imports beside it are
done sooner, too. Files and code have sha256, which `sha256sum` and signing tools know.
"""

from blake3 import blake3


def hasher() -> blake3:
    """An empty one, which lets go of the interpreter's lock while it works and keeps to the thread that calls it."""
    return blake3(max_threads=1)
