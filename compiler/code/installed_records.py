"""The RECORDs of installed distributions: which one each source belongs to."""

from pathlib import Path

from tidalctl.artifacts.distributions import RECORD, Distribution, files_of, rows_digest


class InstalledRecords:
    """Reads the RECORDs of an entry of sys.path when a file there is asked for, once. `numbered` are distributions by their number."""

    def __init__(self) -> None:
        self.numbered: list[Distribution] = []
        self._owners: dict[str, dict[str, Path]] = {}  # by entry of sys.path: its files' RECORDs
        self._read: dict[Path, Distribution] = {}

    def number(self, entry: str, file: str) -> int:
        """Return the number of the distribution that `file` belongs to, or -1."""
        distribution = self.distribution(entry, file)
        if distribution is None:
            return -1
        if distribution not in self.numbered:
            self.numbered.append(distribution)
        return self.numbered.index(distribution)

    def distribution(self, entry: str, file: str) -> Distribution | None:
        """Return the distribution that `file`, which is relative to an entry of sys.path, belongs to."""
        if entry not in self._owners:
            found = sorted(Path(entry).glob(f"*.dist-info/{RECORD}"))
            self._owners[entry] = {name: record for record in found for name in files_of(record.read_bytes())}
        record = self._owners[entry].get(file)
        if record is not None and record not in self._read:
            self._read[record] = (record.parent.name, rows_digest(record.read_bytes()))
        return self._read[record] if record is not None else None
