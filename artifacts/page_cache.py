"""The page cache: asking the kernel to read ahead, and counting what is in memory."""

import contextlib
import ctypes
import functools
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

SMALL = 2**20  # bytes of a file: what is read before larger ones, since that takes no time to speak of
_COUNTED = 64 * 2**20  # bytes a call of mincore: for its duration, no other thread can map a file
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
_EVEN = bytes(range(0, 256, 2))  # of each byte that mincore writes, only the lowest bit is defined
_LEAST = 128 * 2**10  # bytes: what Linux reads ahead on a device that says nothing else


def ask_for(handle: int, parts: Iterable[tuple[int, int]] | None = None) -> None:
    """Have a file, or parts of it (offset, length), brought into the page cache, without waiting for that.

    One piece of advice is good for a few megabytes: Linux silently cuts it to the larger of the device's largest request and its
    read-ahead (force_page_cache_ra in mm/readahead.c). A file system that takes no advice is not asked twice.
    """
    status = os.fstat(handle)
    step = _limit(status.st_dev)
    with contextlib.suppress(OSError):
        for offset, length in parts if parts is not None else ((0, status.st_size),):
            for begin in range(max(offset, 0), min(offset + length, status.st_size), step):
                os.posix_fadvise(handle, begin, min(step, offset + length - begin), os.POSIX_FADV_WILLNEED)


@functools.cache
def _limit(device: int) -> int:
    """Bytes that one piece of advice is good for. A partition's limits are its disk's."""
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    for queue in (block / "queue", block.resolve().parent / "queue"):
        with contextlib.suppress(OSError, ValueError):
            return max(int((queue / name).read_text()) for name in ("max_sectors_kb", "read_ahead_kb")) * 2**10 or _LEAST
    return _LEAST


def count_resident(address: int, length: int) -> int:
    """Count the pages of a mapped range that are in the page cache, by mincore.

    Args:
        address: The range's first byte, at the start of a page.
        length: Bytes of the range.

    Raises:
        OSError: The kernel refuses.
    """
    found = 0
    vector = ctypes.create_string_buffer(min(_COUNTED, length) // mmap.PAGESIZE + 1)
    for first in range(0, length, _COUNTED):
        size = min(_COUNTED, length - first)
        if _libc.mincore(address + first, size, vector) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        found += len(vector.raw[: -(-size // mmap.PAGESIZE)].translate(None, _EVEN))
    return found
