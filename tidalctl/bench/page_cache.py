"""The page cache, put into a known state and asked about it: evicted with posix_fadvise, counted with mincore.

What this can't do: pages that another process has mapped stay (they show in the count), the kernel's caches of names and
inodes stay warm, and so does whatever the host of a virtual machine, or a disk, keeps in memory of its own. Since Linux 5.2
mincore calls every page of a file resident that the caller may not write; such bytes are counted apart, never as a proof.
"""

import ctypes
import errno
import importlib.util
import mmap
import os
import stat
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from tidalctl.artifacts.page_cache import count_resident

COLD = 0.05  # at most this share of the bytes may be left for a run to count as cold
WARM = 0.95
RETRIES_S = (0.0, 0.05, 0.1)  # pages that the kernel holds in its per-CPU lists for a moment survive one call

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MAP_FAILED = ctypes.c_void_p(-1).value


class Residency(msgspec.Struct, frozen=True):
    """Bytes of some files: all, in the page cache, and those for which the kernel would not say."""

    size: int
    resident: int
    unknown: int = 0
    largest: str = ""  # the file with the most bytes in the cache

    @property
    def share(self) -> float | None:
        """The share of bytes in memory, where the unknown count as the kernel states them. None without any bytes."""
        return (self.resident + self.unknown) / self.size if self.size else None

    @property
    def cold(self) -> bool:
        return self.size > 0 and (self.resident + self.unknown) / self.size <= COLD

    @property
    def warm(self) -> bool:
        return self.size > 0 and self.resident / self.size >= WARM


def with_bytecode(files: Iterable[Path]) -> list[Path]:
    """The files, and the cached bytecode of those that are Python source."""
    found: dict[Path, None] = {}
    for path in files:
        found[path] = None
        if path.suffix == ".py":
            try:
                found[Path(importlib.util.cache_from_source(str(path)))] = None
            except NotImplementedError:
                continue
    return list(found)


def cached_files(paths: Iterable[Path]) -> list[Path]:
    """Those of the paths that have pages to cache: regular, readable, not empty, each inode once."""
    found: dict[tuple[int, int], Path] = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size and os.access(path, os.R_OK):
            found.setdefault((status.st_dev, status.st_ino), path)
    return list(found.values())


def residency(files: Sequence[Path]) -> Residency:
    """How much of the files is in memory now. Reads nothing of them."""
    size = resident = unknown = most = 0
    largest = ""
    for path in files:
        counted = _resident(path)
        if counted is None:
            continue
        length, present, known = counted
        size += length
        if known:
            resident += present
        else:
            unknown += present
        if present > most:
            most, largest = present, str(path)
    return Residency(size, resident, unknown, largest)


def _resident(path: Path) -> tuple[int, int, bool] | None:
    """(size, bytes in memory, whether the kernel says so truly) of one file; None where it is gone or can't be mapped."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(handle)
        size = status.st_size
        if not size:
            return None
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, handle, 0)
        if address == _MAP_FAILED:
            code = ctypes.get_errno()
            if code == errno.ENODEV:  # a file of /sys: it has no pages
                return None
            raise OSError(code, os.strerror(code), str(path))
        try:
            pages = count_resident(address, size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        finally:
            _libc.munmap(address, size)
    finally:
        os.close(handle)
    known = os.geteuid() in (0, status.st_uid) or os.access(path, os.W_OK)
    return size, min(pages * mmap.PAGESIZE, size), known


def evict(files: Sequence[Path]) -> Residency:
    """Drop the files from the page cache, dirty pages written first, and say what is left of them."""
    for wait_s in RETRIES_S:
        time.sleep(wait_s)
        for path in files:
            _drop(path)
        left = residency(files)
        if left.cold:
            break
    return left


def _drop(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # gone since; the count does not see it either
        return
    try:
        os.fsync(handle)  # a dirty page is not dropped
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def fill(files: Sequence[Path]) -> Residency:
    """Read what of the files is not in memory yet, and say what is then."""
    now = residency(files)
    if now.warm or not now.size:
        return now
    buffer = bytearray(4 * 2**20)
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return residency(files)
