"""The device of the CPU: the mapped file is the memory, so that bringing a group in is reading it into the page cache.

Compute reads a private mapping, whose written pages are its own. Hashes are taken there, too, which enters the pages in the page table
for compute; what a handler has written meanwhile is no corruption, so that a shared mapping of the same file has the last word. Nothing
is copied but by the kernel, into a buffer that nobody reads: reads bring large folios, whose pages it has touched besides, where faults
(MADV_POPULATE_READ) bring small ones, which the hash then finds one by one.
"""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from tidalctl.artifacts.bundle.manifest import BundleWeight
from tidalctl.artifacts.bundle.weight_groups import Group
from tidalctl.artifacts.errors import COMPILE_AGAIN, Corrupt, Truncated
from tidalctl.artifacts.hashing import weight_hasher
from tidalctl.runtime.weights.file_mapping import PrivateMapping, WeightsFile

STEP = 16 * 2**20  # bytes a call


class MappedDevice:
    """Weights files of one bundle, by name. Each is opened once: a file that takes the name later is not this one.

    Where something has to be read, `turn` returns when it is the weights' turn to keep the disk busy.
    """

    def __init__(self, bundle: Path, files: Iterable[str], turn: Callable[[], None] = lambda: None) -> None:
        self._bundle = bundle
        self._turn = turn
        self.files = {name: WeightsFile(bundle / name) for name in files}
        self.mappings: dict[str, PrivateMapping] = {name: file.map_privately() for name, file in self.files.items()}
        self._counting = threading.Lock()
        self._absent: int | None = None  # bytes that were not in memory when the first group was to be brought

    def map_again(self) -> dict[str, PrivateMapping]:
        """Fresh private mappings, in which nothing has been written."""
        return {name: file.map_privately() for name, file in self.files.items()}

    def resident(self) -> int:
        """Bytes of the files that are in memory now."""
        return sum(file.resident() for file in self.files.values())

    @property
    def streamed(self) -> int:
        """Bytes that were not in memory when the first group was to be brought, and had to be read; 0 before."""
        return self._absent or 0

    def _all_here(self) -> bool:
        """Whether all was in memory when the first group was to be brought: later, what the kernel reads ahead would be counted."""
        if self._absent is None:
            with self._counting:
                if self._absent is None:
                    self._absent = sum(file.size - file.resident() for file in self.files.values())
        return self._absent == 0

    def bring(self, group: Group) -> None:
        file = self.files[group.file]
        if file.changed():
            raise Corrupt(f"{self._bundle}: {group.file} was changed while it was read", COMPILE_AGAIN)
        if self._all_here() or file.holds(group.begin, group.end):
            return
        self._turn()
        for begin in range(group.begin, group.end, STEP):
            length = min(STEP, group.end - begin)
            if file.read(begin, length) != length:
                raise Truncated(f"{self._bundle}: {group.file} can't be read to its end", COMPILE_AGAIN)

    def check(self, group: Group) -> None:
        """Look at a group where compute will, so that it finds the pages there; what differs there may have been written since."""
        file, mapping = self.files[group.file], self.mappings[group.file]
        for weight in group.weights:
            if _digest(mapping.view, weight) != weight.xxh3 and _digest(file.view, weight) != weight.xxh3:
                raise Corrupt(
                    f"{self._bundle}: {weight.name} in {group.file} is not what compile wrote (its xxh3 differs)", COMPILE_AGAIN
                )
        if file.changed():
            raise Corrupt(f"{self._bundle}: {group.file} was changed while it was read", COMPILE_AGAIN)

    def hurry(self, group: Group) -> None:
        """Enter it in the page table, which would hold up imports, which change the table too, but not who stands still."""
        self.mappings[group.file].enter(group.begin, group.end)

    def wait(self, group: Group) -> None:
        """Nothing to wait for: what is in the page cache is in memory."""

    def refuse_changed(self) -> None:
        """Raise Corrupt where somebody has written to a file since it was opened: its pages are the weights."""
        for name, file in self.files.items():
            if file.changed():
                raise Corrupt(f"{self._bundle}: {name} was changed while it was in use", COMPILE_AGAIN)


def _digest(view: Callable[[int, int], memoryview], weight: BundleWeight) -> str:
    digest = weight_hasher()
    for begin in range(weight.offset, weight.offset + weight.nbytes, STEP):
        with view(begin, min(STEP, weight.offset + weight.nbytes - begin)) as chunk:
            digest.update(chunk)
    return digest.hexdigest()
