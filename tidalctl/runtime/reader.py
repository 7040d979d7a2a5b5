"""The reader: from before torch is imported, brings code files and weights into memory and checks the weights' digests.

Two threads, each in order of first use. Both spend their time in calls that release the interpreter lock, beside the imports.
"""

import hashlib
import sys
import threading
from pathlib import Path

from tidalctl.artifacts.bundle import check_file
from tidalctl.artifacts.errors import Corrupt, TidalError
from tidalctl.artifacts.manifest import Manifest
from tidalctl.runtime.mapping import PrivateMapping, in_memory, read_ahead
from tidalctl.runtime.timeline import Timeline

STEP = 64 * 2**20  # bytes a call: long enough that taking the interpreter lock back in between does not matter


class Reader:
    """Maps every weights file at once, then streams them. `wait()` returns when all is read and checked, or raises what is wrong."""

    def __init__(self, bundle: Path, manifest: Manifest, verify: bool, timeline: Timeline) -> None:
        self._bundle = bundle
        self._manifest = manifest
        self._verify = verify
        self._timeline = timeline
        self._error: TidalError | None = None
        self._done = False
        self.imported = threading.Event()  # set when the function's imports are done
        # as the manifest lists them, and a file without weights has nothing to map
        files = dict.fromkeys(weight.file for weight in manifest.weights)
        self.mappings = {name: PrivateMapping(bundle / name) for name in files}
        self.bytes = sum(mapping.size for mapping in self.mappings.values())
        self.resident_before = 0
        self._threads = [
            threading.Thread(target=self._read_code, name="reader: code", daemon=True),
            threading.Thread(target=self._stream, name="reader: weights", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_code(self) -> None:
        """Shared libraries whole, then modules in import order, until the imports are done.

        Modules are many and small, and asking for each takes the interpreter lock: where some of them, taken evenly, are in memory,
        the rest is taken to be, too.
        """
        with self._timeline.span("read code ahead"):
            libraries = [name for name in self._manifest.readahead if ".so" in name]
            modules = [name for name in self._manifest.readahead if ".so" not in name]
            for name in libraries:
                self._read_one(name)
            if all(in_memory(path) for name in modules[:: max(len(modules) // 8, 1)] if (path := _find(name))):
                return
            for name in modules:
                self._read_one(name)

    def _read_one(self, name: str) -> None:
        if not self.imported.is_set() and (path := _find(name)):
            read_ahead(path)

    def _stream(self) -> None:
        try:
            self._stream_all()
        except OSError as error:
            self._error = Corrupt(f"{self._bundle}: the weights could not be read: {error}", "compile the bundle again")
        self._done = True

    def _stream_all(self) -> None:
        self.resident_before = sum(mapping.resident() for mapping in self.mappings.values())
        for name, mapping in self.mappings.items():
            ahead = threading.Thread(target=self._populate, args=(mapping,), name="reader: ahead", daemon=True)
            ahead.start()
            if self._verify:
                self._check(name, mapping)
            ahead.join()

    def _populate(self, mapping: PrivateMapping) -> None:
        with self._timeline.span("read weights ahead"):
            for offset in range(0, mapping.size, STEP):
                if not mapping.populate(offset, STEP):
                    return

    def _check(self, name: str, mapping: PrivateMapping) -> None:
        with self._timeline.span("check weights"):
            digest = hashlib.sha256()
            with memoryview(mapping.memory) as view:
                for offset in range(0, mapping.size, STEP):
                    with view[offset : offset + STEP] as chunk:
                        digest.update(chunk)
            try:
                check_file(self._bundle, self._manifest, name, digest.hexdigest())
            except TidalError as error:
                self._error = self._error or error

    def wait(self) -> None:
        """Return when every weight is in memory and its digest is the manifest's. Raises Corrupt otherwise, each time."""
        self._threads[1].join()
        if self._error is not None:
            raise self._error
        if not self._done:  # the thread died of something that its own handler does not know
            raise Corrupt(f"{self._bundle}: the weights were not read to their end", "compile the bundle again")

    @property
    def streamed(self) -> int:
        """Bytes that were not in memory before and had to be read."""
        return self.bytes - self.resident_before


def _find(name: str) -> Path | None:
    """A file by its path relative to a sys.path entry."""
    return next((path for entry in sys.path if entry and (path := Path(entry, name)).is_file()), None)
