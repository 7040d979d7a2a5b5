"""Files mapped into memory: privately, so that what writes to a weight writes to its own copy."""

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

from tidalctl.artifacts.page_cache import ask_for, count_resident

PAGE = mmap.PAGESIZE
BUFFER = 2**20  # bytes: what stays in a core's own cache
MADV_POPULATE_READ = 22
CACHESTAT = 451  # the call's number on every processor
MAP_NORESERVE = 0x4000  # which Python has no name for before 3.13
_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint]


class PrivateMapping:
    """A whole file, mapped copy-on-write."""

    def __init__(self, source: Path | int) -> None:
        if isinstance(source, Path):
            with open(source, "rb", buffering=0) as file:
                self._map(file.fileno())
        else:
            self._map(source)

    def _map(self, handle: int) -> None:
        self.size = os.fstat(handle).st_size
        # no memory is set aside for copies that are never made, or a file larger than memory could not be mapped
        flags, protection = mmap.MAP_PRIVATE | MAP_NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        self.memory = mmap.mmap(handle, self.size, flags=flags, prot=protection)
        # the address is read through a view that is dropped at once, so that the mapping can be closed again
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def view(self, offset: int, length: int) -> memoryview:
        """The bytes as they are here now, written ones among them. Not to be kept."""
        return memoryview(self.memory)[offset : offset + length]

    def enter(self, begin: int, end: int) -> None:
        """Enter a range that is in memory in the page table, so that its reader finds no faults."""
        begin -= begin % PAGE
        enter_pages(self.address + begin, end - begin)


def enter_pages(address: int, length: int) -> None:
    """Enter mapped pages, from the first byte of one on, in this process's page table. A kernel before 5.14 does nothing."""
    _libc.madvise(address, length, MADV_POPULATE_READ)


class WeightsFile:
    """A file of a bundle, held open: what takes its name later is another file."""

    _handle = -1

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._handle)
        self.size = status.st_size
        self._written = status.st_mtime_ns
        self._shared = mmap.mmap(self._handle, self.size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) if self.size else None

    def __del__(self) -> None:
        if self._handle >= 0:  # it was there to be opened
            os.close(self._handle)

    def fileno(self) -> int:
        return self._handle

    def map_privately(self) -> PrivateMapping:
        return PrivateMapping(self._handle)

    def view(self, offset: int, length: int) -> memoryview:
        """The file's bytes as they are now, whatever private mappings were written to. Not to be kept."""
        return memoryview(self._shared or b"")[offset : offset + length]

    def read(self, offset: int, length: int) -> int:
        """Read a range into the page cache, and over and over into one small buffer. Returns how many bytes there were."""
        buffer, done = memoryview(bytearray(BUFFER)), 0
        while done < length:  # a file system may give less than was asked for
            whole, rest = divmod(length - done, BUFFER)
            read = os.preadv(self._handle, [buffer] * whole + [buffer[:rest]], offset + done)
            if not read:
                break
            done += read
        return done

    def resident(self, begin: int = 0, end: int | None = None) -> int:
        """How many bytes of a range are in the page cache now, in whole pages. A kernel before 6.5 looks through the page table."""
        end = self.size if end is None else end
        begin -= begin % PAGE
        if begin >= end:
            return 0
        span, found = (ctypes.c_uint64 * 2)(begin, end - begin), (ctypes.c_uint64 * 5)()
        if _libc.syscall(CACHESTAT, self._handle, span, found, 0) == 0:
            pages = found[0]
        else:
            private = self.map_privately()  # held until it is counted
            try:
                pages = count_resident(private.address + begin, end - begin)
            except OSError:  # the kernel won't say
                return 0
        return min(pages * PAGE, end - begin)

    def holds(self, begin: int, end: int) -> bool:
        """Whether this range is in the page cache now."""
        return self.resident(begin, end) == end - begin + begin % PAGE

    def changed(self) -> bool:
        """Whether somebody has written to it, or cut it, since it was opened."""
        status = os.fstat(self._handle)
        return (status.st_size, status.st_mtime_ns) != (self.size, self._written)


def read_ahead(path: Path, parts: Iterable[tuple[int, int]] | None = None) -> None:
    """Have a file, or parts of it (offset, length), brought into the page cache, without waiting for that. One that is gone is not."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return
    try:
        ask_for(handle, parts)
    finally:
        os.close(handle)


def in_memory(path: Path) -> bool:
    """Whether nine tenths of a file are in the page cache. The kernel says yes to whoever may not know (files of other users).

    Of a file that is gone there is nothing to read.
    """
    try:
        file = WeightsFile(path)
    except OSError:
        return True
    return file.resident() >= 0.9 * file.size
