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

    def __init__(self, path: Path) -> None:
        with open(path, "rb", buffering=0) as file:
            self.size = os.fstat(file.fileno()).st_size
            # no memory is set aside for copies that are never made, or a file larger than memory could not be mapped
            flags, protection = mmap.MAP_PRIVATE | MAP_NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
            self.memory = mmap.mmap(file.fileno(), self.size, flags=flags, prot=protection)
        # the address is read through a view that is dropped at once, so that the mapping can be closed again
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def populate(self, offset: int, length: int) -> bool:
        """Read a range ahead and enter it in the page table. False where the kernel can't; reading goes on by faults then."""
        begin = offset - offset % PAGE
        end = min(offset + length, self.size)
        return bool(_libc.madvise(self._address + begin, end - begin, MADV_POPULATE_READ) == 0)

    def resident(self) -> int:
        """How many bytes of the file are in the page cache now."""
        pages = -(-self.size // PAGE)
        vector = ctypes.create_string_buffer(pages)
        if _libc.mincore(self._address, self.size, vector) != 0:
            return 0
        return min(vector.raw.count(b"\x01") * PAGE, self.size)


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
    if path.stat().st_size == 0:
        return True
    mapping = PrivateMapping(path)
    return mapping.resident() >= 0.9 * mapping.size
