"""Tells whether an installed source is the one that the code pack was made of: by its time, its RECORD, or its content."""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from tidalctl.artifacts.bundle.code_pack import PackedModule
from tidalctl.artifacts.distributions import RECORD, rows_digest, source_digest


class UnchangedSources:
    """Answers for modules of a pack. `times` are the sources' times at compile, in seconds; `records` as in PackIndex."""

    def __init__(self, times: Mapping[str, int], records: Sequence[tuple[str, str]]) -> None:
        self._times = times
        self._records = records
        self._vouching: dict[tuple[int, str], float] = {}  # by number and folder: the RECORD's time where its rows are the same

    def holds(self, module: PackedModule, place: str) -> bool:
        """Whether the file at `place` has the module's source. Another environment's has, if that was installed from the same files."""
        try:
            found = os.stat(place)
            if not stat.S_ISREG(found.st_mode) or found.st_size != module.size:
                return False
            if int(found.st_mtime) == self._times.get(module.file):
                return True
            if found.st_mtime <= self._recorded_s(module, place):
                return True
            return source_digest(Path(place).read_bytes()) == module.digest
        except OSError:
            return False

    def _recorded_s(self, module: PackedModule, place: str) -> float:
        """Return when the RECORD was written that vouches for a module's distribution; -1 where none does."""
        if not 0 <= module.record < len(self._records):
            return -1.0
        folder = place.removesuffix(module.file)
        known = self._vouching.get((module.record, folder))
        if known is None:
            name, digest = self._records[module.record]
            known = -1.0
            record = Path(folder, name, RECORD)
            if record.is_file() and rows_digest(record.read_bytes()) == digest:
                known = record.stat().st_mtime
            self._vouching[module.record, folder] = known
        return known
