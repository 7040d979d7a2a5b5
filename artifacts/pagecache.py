"""Asking the kernel for what is going to be read."""

import contextlib
import functools
import os
from collections.abc import Iterable
from pathlib import Path

SMALL = 2**20  # bytes of a file: what is read before larger ones, since that takes no time to speak of
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
