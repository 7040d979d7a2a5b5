"""What trees of processes use, as /proc tells it: CPU time, bytes read from disks, memory."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from tidalctl.runtime.process.held_memory import held_memory

EVERY_S = 1.0
SHARE = 0.05  # of one core at most goes into looking at memory
_TICKS = os.sysconf("SC_CLK_TCK")


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds, user and system, and bytes that came from disks; None where the kernel does not tell."""

    cpu_s: float = 0.0
    read_bytes: int | None = 0

    def __add__(self, other: "Usage") -> "Usage":
        unknown = self.read_bytes is None or other.read_bytes is None
        return Usage(self.cpu_s + other.cpu_s, None if unknown else (self.read_bytes or 0) + (other.read_bytes or 0))

    def __sub__(self, other: "Usage") -> "Usage":
        unknown = self.read_bytes is None or other.read_bytes is None
        return Usage(self.cpu_s - other.cpu_s, None if unknown else (self.read_bytes or 0) - (other.read_bytes or 0))


def wait_for(pid: int) -> tuple[int, Usage]:
    """Wait for a child. Return its exit code, as subprocess has it, and what it and the children that it waited for have used."""
    _, status, used = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), Usage(used.ru_utime + used.ru_stime, used.ru_inblock * 512)


def tree(roots: Iterable[int]) -> list[int]:
    """Return the processes that are there of these and of all that descend from them."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _fields(int(name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, ())
    return found


def used_by(pids: Iterable[int]) -> Usage:
    """What these processes have used so far, and the children that they have waited for."""
    total = Usage()
    for pid in pids:
        fields = _fields(pid)
        if fields:
            total += Usage(sum(int(ticks) for ticks in fields[11:15]) / _TICKS, _read_bytes(pid))
    return total


def _fields(pid: int) -> list[str]:
    """The fields of a process's stat from its state on; none where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _read_bytes(pid: int) -> int | None:
    try:
        return _number(Path(f"/proc/{pid}/io").read_text(), "read_bytes:")
    except PermissionError:
        return None
    except OSError:  # gone since
        return 0


def _number(text: str, name: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name)), 0)


class MemoryWatch:
    """The highest memory that trees of processes had together, looked at about every second.

    `told` is called after each look, with the memory of each tree by its root.
    """

    def __init__(self, roots: Callable[[], list[int]], told: Callable[[dict[int, int]], None]) -> None:
        self._roots, self._told = roots, told
        self._peak = 0
        self._unknown = False
        self._over = threading.Event()

    @property
    def peak(self) -> int | None:
        """Bytes; None where the kernel did not tell those of some process."""
        return None if self._unknown else self._peak

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch, name="memory")
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def look(self) -> None:
        memory: dict[int, int] = {}
        for root in self._roots():
            sizes = [held_memory(pid) for pid in tree([root])]
            self._unknown = self._unknown or None in sizes
            memory[root] = sum(size or 0 for size in sizes)
        self._peak = max(self._peak, sum(memory.values()))
        self._told(memory)

    def _watch(self) -> None:
        pause = 0.0
        while not self._over.wait(pause):
            begin = time.thread_time()
            self.look()
            pause = max(EVERY_S, (time.thread_time() - begin) / SHARE)
