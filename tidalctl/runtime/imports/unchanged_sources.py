"""Tells whether installed sources are those that a bundle was made of: by their time, their distribution's RECORD, or their content."""

import os
import stat
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from tidalctl.artifacts.bundle.import_cache import FolderContent, names_in, names_of
from tidalctl.artifacts.distributions import RECORD, Distribution, rows_digest, source_digest


class UnchangedSources:
    """Answers for sources and folders, which are named relative to their entry of sys.path.

    `times` and `folder_times` are those at compile: of sources in seconds, as bytecode has them, and of folders in nanoseconds.
    """

    def __init__(self, times: Mapping[str, int], folder_times: Mapping[str, int]) -> None:
        self._times = times
        self._folder_times = folder_times
        self._vouching: dict[
            tuple[Distribution, str], float
        ] = {}  # by distribution and folder: the RECORD's time if it is the same

    def holds(self, place: str, file: str, size: int, digest: str, distribution: Distribution | None) -> bool:
        """Whether `place` has the source `file`, of that size and digest. Another environment's has, if it was installed alike."""
        try:
            found = os.stat(place)
            if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                return False
            if int(found.st_mtime) == self._times.get(file):
                return True
            if distribution is not None and found.st_mtime <= self._recorded_s(distribution, place.removesuffix(file)):
                return True
            return source_digest(Path(place).read_bytes()) == digest
        except OSError:
            return False

    def holds_folder(self, entry: str, folder: str, content: FolderContent) -> bool:
        """Whether a folder below an entry of sys.path has all sources and folders of `content` and no other. Bytecode is none."""
        names: Mapping[str, set[str]] = {}
        try:
            for distribution, known in content.items():
                for name, (size, digest) in known.items():
                    file = f"{folder}/{name}"
                    if not name.endswith("/"):
                        if not self.holds(entry + file, file, size, digest, distribution):
                            return False
                    elif not self.is_as_before(entry + file, file.rstrip("/")):
                        names = names or names_of(chain(*content.values()))
                        if names_in(entry + file) != names[name]:
                            return False
        except OSError:
            return False
        return True

    def is_as_before(self, place: str, folder: str) -> bool:
        """Whether nothing has come into a folder, or gone from it, since compile, as far as its time tells."""
        try:
            return os.stat(place).st_mtime_ns == self._folder_times.get(folder)
        except OSError:
            return False

    def _recorded_s(self, distribution: Distribution, entry: str) -> float:
        """Return when the RECORD was written that vouches for a distribution's sources; -1 where there is none with the same rows."""
        known = self._vouching.get((distribution, entry))
        if known is None:
            name, digest = distribution
            known = -1.0
            record = Path(entry, name, RECORD)
            if record.is_file() and rows_digest(record.read_bytes()) == digest:
                known = record.stat().st_mtime
            self._vouching[distribution, entry] = known
        return known
