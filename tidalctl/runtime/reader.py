"""Reads code ahead, from before torch is imported: shared libraries, and bytecode that no code pack holds."""

import sys
import threading
from pathlib import Path

from tidalctl.artifacts.manifest import Manifest
from tidalctl.runtime.mapping import in_memory, read_ahead
from tidalctl.runtime.timeline import Timeline


class CodeReader:
    """Begins when it is made and ends with the imports. A thread that spends its time in calls that release the interpreter lock."""

    def __init__(self, manifest: Manifest, timeline: Timeline, packed: bool) -> None:
        self._manifest = manifest
        self._timeline = timeline
        self._packed = packed  # modules come from the code pack, which reads itself ahead
        self.imported = threading.Event()  # set when the function's imports are done
        threading.Thread(target=self._read, name="reader: code", daemon=True).start()

    def _read(self) -> None:
        """Shared libraries whole, then modules in import order, until the imports are done.

        Modules are many and small, and asking for each takes the interpreter lock: where some of them, taken evenly, are in memory,
        the rest is taken to be, too.
        """
        with self._timeline.span("read code ahead"):
            libraries = [name for name in self._manifest.readahead if ".so" in name]
            modules = [name for name in self._manifest.readahead if ".so" not in name]
            for name in libraries:
                self._read_one(name)
            if self._packed or all(in_memory(path) for name in modules[:: max(len(modules) // 8, 1)] if (path := _find(name))):
                return
            for name in modules:
                self._read_one(name)

    def _read_one(self, name: str) -> None:
        if not self.imported.is_set() and (path := _find(name)):
            read_ahead(path)


def _find(name: str) -> Path | None:
    """A file by its path relative to a sys.path entry."""
    return next((path for entry in sys.path if entry and (path := Path(entry, name)).is_file()), None)
