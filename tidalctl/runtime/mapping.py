"""Files mapped into memory: privately, so that what writes to a weight writes to its own copy."""

import ctypes
import mmap
import os
from pathlib import Path

PAGE = mmap.PAGESIZE
MADV_POPULATE_READ = 22  # Linux 5.14
MAP_NORESERVE = 0x4000  # which Python has no name for before 3.13
_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]


class PrivateMapping:
    """A whole file, mapped copy-on-write. Calls that may block release the interpreter lock (mmap's own madvise does not)."""

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

    def enter(self, offset: int, length: int) -> int:
        """Read a range and enter it in the page table. 0, or the error's number: EINVAL where the kernel can't, EFAULT past the end."""
        begin = offset - offset % PAGE
        end = min(offset + length, self.size)
        if _libc.madvise(self.address + begin, end - begin, MADV_POPULATE_READ) == 0:
            return 0
        return ctypes.get_errno()

    def resident(self) -> int:
        """How many bytes of the file are in the page cache now."""
        if not self.size:
            return 0
        vector = ctypes.create_string_buffer(-(-self.size // PAGE))
        if _libc.mincore(self.address, self.size, vector) != 0:
            return 0
        return min(vector.raw.count(b"\x01") * PAGE, self.size)


class WeightsFile:
    """A file of a bundle, held open: what takes its name later is another file."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._handle)
        self.size = status.st_size
        self._written = status.st_mtime_ns
        self._shared = mmap.mmap(self._handle, self.size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) if self.size else None

    def __del__(self) -> None:
        os.close(self._handle)

    def fileno(self) -> int:
        return self._handle

    def map_privately(self) -> PrivateMapping:
        return PrivateMapping(self._handle)

    def view(self, offset: int, length: int) -> memoryview:
        """The file's bytes as they are now, whatever private mappings were written to. Not to be kept."""
        return memoryview(self._shared or b"")[offset : offset + length]

    def read(self, offset: int, length: int) -> int:
        """Read a range into the page cache. Returns how many bytes there were."""
        os.posix_fadvise(self._handle, offset, length, os.POSIX_FADV_WILLNEED)
        return len(os.pread(self._handle, length, offset))

    def resident(self) -> int:
        """How many of its bytes are in the page cache now."""
        # a read-only mapping gives ctypes no address, so that another is made for it and dropped
        return self.map_privately().resident() if self.size else 0

    def changed(self) -> bool:
        """Whether somebody has written to it, or cut it, since it was opened."""
        status = os.fstat(self._handle)
        return (status.st_size, status.st_mtime_ns) != (self.size, self._written)


def read_ahead(path: Path) -> int:
    """Ask the kernel to bring a file into the page cache, without waiting for it. Returns its size, 0 where it isn't there."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        size = os.fstat(handle).st_size
        os.posix_fadvise(handle, 0, size, os.POSIX_FADV_WILLNEED)
        return size
    finally:
        os.close(handle)


def in_memory(path: Path) -> bool:
    """Whether nine tenths of a file are in the page cache. The kernel says yes to whoever may not know (files of other users)."""
    file = WeightsFile(path)
    return file.resident() >= 0.9 * file.size
