"""Reads code ahead, from before torch is imported: what of shared libraries a start touches, and files that imports look through."""

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from tidalctl.artifacts.bundle.manifest import PACK, PROVENANCE, Manifest
from tidalctl.artifacts.bundle.provenance import Touched, provenance_fields
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.weights.file_mapping import in_memory, read_ahead

SAMPLES = 8  # of the files that are many: where these are in memory, the others are taken to be
Parts = Iterable[tuple[int, int]]  # offset and length of each


class CodeReadAhead:
    """A thread that asks the kernel for what a start will read. It begins when this object is made."""

    def __init__(self, bundle: Path, manifest: Manifest, timeline: Timeline) -> None:
        self._bundle = bundle
        self._manifest = manifest
        self._timeline = timeline
        self._asked = threading.Event()
        self._imported = False
        threading.Thread(target=self._read, name="reader: code", daemon=True).start()

    def finish(self) -> None:
        """Stop asking: the function's imports are done."""
        self._imported = True

    def wait(self) -> None:
        """Return when all has been asked for, so that what is read next comes behind it."""
        self._asked.wait()

    def _read(self) -> None:
        try:
            with self._timeline.span("read code ahead"):
                for _ in self._ask():
                    if self._imported:
                        return
        finally:
            self._asked.set()

    def _ask(self) -> Iterator[None]:
        """Ask for what the start checks, then libraries and the code pack, shortest first, then sources. Yield after each file."""
        found = list(_find(self._manifest.readahead))
        sources = [path for _, path in found if path.suffix == ".py"]
        weights = {weight.file for weight in self._manifest.weights}
        for name in (PROVENANCE, *self._manifest.files):
            if name not in weights and name != PACK:
                read_ahead(self._bundle / name)
        yield
        asked = libraries_touched(self._bundle, self._manifest)
        asked += [(self._bundle / name, None) for name in self._manifest.files if name == PACK]
        for path, parts in sorted(asked, key=_length):
            read_ahead(path, parts)
            yield
        if not all(map(in_memory, sources[:: max(len(sources) // SAMPLES, 1)])):
            for path in sources:
                read_ahead(path)
                yield


def libraries_touched(bundle: Path, manifest: Manifest) -> list[tuple[Path, Parts | None]]:
    """Return the shared libraries of a start, each with what the traced process touched of it; None is all of it."""
    touched = provenance_fields(bundle, Touched).touched
    return [(path, touched.get(name)) for name, path in _find(manifest.readahead) if path.suffix != ".py"]


def _find(names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Yield each name, relative to an entry of sys.path, with its path. All names below one top-level folder share an entry."""
    entries: dict[str, str] = {}
    for name in names:
        top = name.partition("/")[0]
        if top not in entries:
            entries[top] = next((entry for entry in sys.path if entry and os.path.isfile(f"{entry}/{name}")), "")
        if entries[top]:
            yield name, Path(entries[top], name)


def _length(asked: tuple[Path, Parts | None]) -> int:
    """Return how many bytes of a file are asked for."""
    path, parts = asked
    if parts is not None:
        return sum(length for _, length in parts)
    try:
        return path.stat().st_size
    except OSError:
        return 0
