"""How fast weights come: the disk past the page cache, and the hash that checks them. Measured, not nominal."""

import contextlib
import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tidalctl.artifacts.errors import COMPILE_AGAIN, TidalError
from tidalctl.artifacts.hashing import weight_hasher
from tidalctl.runtime.weights.engine import WORKERS
from tidalctl.runtime.weights.file_mapping import WeightsFile

SAMPLE = 2**30  # bytes of the file that are read
STEP = 8 * 2**20
HASHED = 64 * 2**20  # bytes that are hashed for a measurement: more than caches hold


def read_bandwidth(path: Path) -> float:
    """Bytes a second that this file's disk gives to direct reads, in order. Raises TidalError where there are none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError as error:
        raise _unmeasured(path, error) from None
    try:
        size = min(os.fstat(handle).st_size, SAMPLE)
        if size == 0:
            raise TidalError(f"{path} is empty", COMPILE_AGAIN)
        offsets = range(0, max(size - STEP, 0) + 1, STEP)  # of a small file all of it, whose time is the disk's latency
        parts = [offsets[first::WORKERS] for first in range(WORKERS)]
        with contextlib.ExitStack() as stack:
            # direct reads want memory on a page's boundary; its first touch is no part of what the disk takes
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
            buffers = [stack.enter_context(mmap.mmap(-1, STEP, flags=flags)) for _ in parts]
            pool = stack.enter_context(ThreadPoolExecutor(WORKERS))
            begin = time.perf_counter()
            total = sum(pool.map(lambda buffer, part: _read(handle, buffer, part), buffers, parts))
            return total / (time.perf_counter() - begin)
    except OSError as error:
        raise _unmeasured(path, error) from None
    finally:
        os.close(handle)


def _read(handle: int, buffer: mmap.mmap, offsets: range) -> int:
    return sum(os.preadv(handle, [buffer], offset) for offset in offsets)


def _unmeasured(path: Path, error: OSError) -> TidalError:
    return TidalError(f"{path} can't be read past the page cache: {error.strerror}", "name the bandwidth: --bandwidth 2.5GB/s")


def hash_bandwidth(path: Path) -> float:
    """Bytes a second that one core checks this file's weights at, which are in memory by then but in nobody's page table."""
    try:
        file = WeightsFile(path)
        size = file.read(0, min(file.size, HASHED))
    except OSError as error:
        raise TidalError(f"{path} can't be read: {error.strerror}", COMPILE_AGAIN) from None
    digest = weight_hasher()
    begin = time.perf_counter()
    with file.view(0, size) as data:
        digest.update(data)
    return size / (time.perf_counter() - begin)


def check_bandwidth(path: Path) -> float:
    """Bytes a second that a run's workers hash beside the function, which keeps a core to itself where there is another."""
    return hash_bandwidth(path) * min(WORKERS, max((os.cpu_count() or 2) - 1, 1))
