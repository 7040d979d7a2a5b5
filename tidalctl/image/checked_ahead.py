"""What is done beside a restore, which keeps one core busy: libraries are read ahead, weights read and checked.

The restored process takes the groups of weights that were checked here for right, and brings the others in by itself, as any start. The
files are those that it has open: their sizes and times are compared before, and again before its output leaves.
"""

import mmap
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tidalctl.runtime.weights.file_mapping import WeightsFile, read_ahead

CHUNK = 4 * 2**20  # bytes, after which somebody may have asked to stop
_COUNT = struct.Struct("q")
Group = Sequence[Any]  # name of the file, begin, end, and of each weight: offset, bytes, XXH3


class CheckedAhead:
    """How many groups of weights are in memory and right: counted in one process, and read in another, of which it is a fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * _COUNT.size)

    def stop(self) -> int:
        """Have the other process stop. Returns how many groups it has checked, from the first on."""
        _COUNT.pack_into(self._memory, _COUNT.size, 1)
        count: int = _COUNT.unpack_from(self._memory, 0)[0]
        return count

    @property
    def _stopped(self) -> bool:
        return bool(_COUNT.unpack_from(self._memory, _COUNT.size)[0])

    def work(
        self,
        bundle: Path,
        image: Sequence[Path],
        touched: Mapping[str, Sequence[Sequence[int]]],
        groups: Sequence[Group],
        gone: Callable[[], bool],
    ) -> None:
        """Read the files of the image, then what was `touched` of each file (offset, bytes); then read and check groups of weights.

        Once it is to stop, what is not in memory yet is read on, since one reader has more of a disk than several have between them;
        until the restored process is `gone`.
        """
        for file in map(WeightsFile, image):  # what is needed first has the disk for itself
            if file.resident() < file.size:
                file.read(0, file.size)
        for path, parts in touched.items():
            read_ahead(Path(path), [(offset, length) for offset, length in parts])
        files = {name: WeightsFile(bundle / name) for name in {group[0] for group in groups}}
        right = True
        for number, (name, begin, end, weights) in enumerate(groups):
            if self._stopped and gone():
                return
            if not files[name].holds(begin, end):
                files[name].read(begin, min(end, files[name].size) - begin)
            right = right and self._right(files[name], weights)
            if right:
                _COUNT.pack_into(self._memory, 0, number + 1)

    def _right(self, file: WeightsFile, weights: Sequence[tuple[int, int, str]]) -> bool:
        """Whether weights that are in memory are what the manifest says. False, too, where somebody has it stop."""
        from tidalctl.artifacts.hashing import weight_hasher

        for offset, nbytes, expected in weights:
            digest = weight_hasher()
            for begin in range(offset, offset + nbytes, CHUNK):
                if self._stopped:
                    return False
                with file.view(begin, min(CHUNK, offset + nbytes - begin)) as chunk:
                    digest.update(chunk)
            if digest.hexdigest() != expected:
                return False
        return True
