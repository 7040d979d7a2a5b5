"""Reads ranges of a weights file into memory of the caller's, through the page cache or past it (O_DIRECT)."""

import errno
import os

from tidalctl.artifacts.errors import COMPILE_AGAIN, Truncated
from tidalctl.runtime.weights.file_mapping import PAGE, WeightsFile

BLOCK = 4096  # what direct reads want memory, offset and length to be multiples of, on any disk


class Reads:
    """One file's. Calls may come from many threads, release the interpreter lock, and never move the file's position.

    With `direct`, the page cache is left alone where the file system can; `direct` says afterwards whether it could.
    """

    def __init__(self, file: WeightsFile, direct: bool) -> None:
        self._file = file  # keeps it open
        self._aside = -1
        self.direct = direct and self._open_aside()

    def _open_aside(self) -> bool:
        """Open the same file a second time, whatever has taken its name meanwhile."""
        try:
            self._aside = os.open(f"/proc/self/fd/{self._file.fileno()}", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError:  # the file system has no such reads, or there is no /proc
            return False
        return True

    def __del__(self) -> None:
        if self._aside >= 0:
            os.close(self._aside)

    def read(self, begin: int, end: int, memory: memoryview) -> int:
        """Read bytes `begin` to `end` of the file into `memory`. Returns where in it they begin, less than BLOCK.

        The memory is BLOCK-aligned writable bytes, 2 * BLOCK more of them than are read. Raises OSError, and Truncated where the
        file ends before `end`.
        """
        if self.direct:
            low = begin - begin % BLOCK
            try:
                self._fill(self._aside, low, end, memory[: -(-(end - low) // BLOCK) * BLOCK])
                return begin - low
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EFAULT):  # the latter for memory that a driver has mapped
                    raise
                self.direct = False  # opened, and refused all the same
        self._fill(self._file.fileno(), begin, end, memory[: end - begin])
        return 0

    def _fill(self, handle: int, begin: int, end: int, memory: memoryview) -> None:
        done = 0
        while begin + done < end:
            count = os.preadv(handle, [memory[done:]], begin + done)
            if count == 0 or (handle == self._aside and count % BLOCK and begin + done + count < end):
                raise Truncated(f"the weights end after {begin + done + count} bytes, before {end}", COMPILE_AGAIN)
            done += count


def too_large_to_cache(nbytes: int) -> bool:
    """Whether the page cache could not keep so many bytes until they are used: more than half of what memory could take."""
    return nbytes > available_memory() // 2


def available_memory() -> int:
    """Bytes that processes and the page cache could take yet, what the cache holds now included; all there is where nobody says."""
    try:
        with open("/proc/meminfo", "rb") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(b"MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * PAGE
