"""How fast weights come: the disk past the page cache, and the hash that checks them. Measured, not nominal."""

import hashlib
import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tidalctl.artifacts.errors import TidalError

SAMPLE = 2**30  # bytes of the file that are read
STEP = 8 * 2**20
THREADS = 2  # as many as a run reads with


def read_bandwidth(path: Path) -> float:
    """Bytes a second that this file's disk gives to direct reads, in order. Raises TidalError where there are none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError as error:
        raise _unmeasured(path, error) from None
    try:
        size = min(os.fstat(handle).st_size, SAMPLE)
        if size < STEP:
            raise TidalError(f"{path} has {size} bytes, too few to measure a bandwidth with", "name one: --bandwidth 2.5GB/s")
        offsets = range(0, size - STEP + 1, STEP)
        begin = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            total = sum(pool.map(lambda part: _read(handle, offsets[part::THREADS]), range(THREADS)))
        return total / (time.perf_counter() - begin)
    except OSError as error:
        raise _unmeasured(path, error) from None
    finally:
        os.close(handle)


def _read(handle: int, offsets: range) -> int:
    with mmap.mmap(-1, STEP) as buffer:  # direct reads want memory on a page's boundary
        return sum(os.preadv(handle, [buffer], offset) for offset in offsets)


def _unmeasured(path: Path, error: OSError) -> TidalError:
    return TidalError(f"{path} can't be read past the page cache: {error.strerror}", "name the bandwidth: --bandwidth 2.5GB/s")


def hash_bandwidth() -> float:
    """Bytes a second that one core's sha256 takes."""
    data = bytes(STEP)
    hashlib.sha256(data).digest()
    begin = time.perf_counter()
    for _ in range(4):
        hashlib.sha256(data).digest()
    return 4 * STEP / (time.perf_counter() - begin)
