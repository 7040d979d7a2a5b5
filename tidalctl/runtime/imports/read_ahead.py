"""Reads code ahead, from before torch is imported: what of shared libraries a start touches, and files that imports look through.

A few thousand requests, each of which would ask for the interpreter lock again: where this process is one thread still, a forked
child makes them, and ends. In a process that is somebody else's a thread does.
"""

import contextlib
import os
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tidalctl.artifacts.bundle.manifest import PACK, PROVENANCE, Manifest
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.weights.file_mapping import in_memory, read_ahead

SAMPLES = 8  # of the files that are many: where these are in memory, the others are taken to be
THREAD = "reader: code"
Parts = Iterable[tuple[int, int]]  # offset and length of each
_TIMES = struct.Struct("qq")  # begin and end in ns of the monotonic clock, which a child shares


class CodeReader:
    """Begins when it is made. `wait` returns when all has been asked for, so that what is read next comes behind it."""

    def __init__(self, bundle: Path, manifest: Manifest, timeline: Timeline, *, forks: bool = False) -> None:
        self._bundle = bundle
        self._manifest = manifest
        self._timeline = timeline
        self._asked = threading.Event()
        self._child: int | None = None  # the pipe that it ends with
        self._reading = threading.Lock()
        self._imported = False
        if forks and threading.active_count() == 1 and os.getpid() != 1:  # orphans are the first process's, and the function's
            with contextlib.suppress(OSError):  # no more processes for us
                self._child = self._fork()
        if self._child is None:
            threading.Thread(target=self._read, name=THREAD, daemon=True).start()

    def finish(self) -> None:
        """The function's imports are done: a thread stops, and what a child has left to say is taken."""
        self._imported = True
        if self._child is not None and self._reading.acquire(blocking=False):  # or else somebody waits for it
            try:
                if not self._asked.is_set() and select.select([self._child], [], [], 0)[0]:
                    self._hear(self._child)
            finally:
                self._reading.release()

    def wait(self) -> None:
        """Return when what a start will read has been asked for."""
        if self._child is None:
            self._asked.wait()
            return
        with self._reading:
            if not self._asked.is_set():
                self._hear(self._child)

    def _hear(self, child: int) -> None:
        times = os.read(child, _TIMES.size)
        os.close(child)
        if len(times) == _TIMES.size:  # it may have been killed
            begin, end = _TIMES.unpack(times)
            self._timeline.add("read code ahead", begin, end, THREAD)
        self._asked.set()

    def _fork(self) -> int:
        """The child's end of a pipe. It is nobody's child by then: the function may wait for its own, and would find it."""
        ours, its = os.pipe()
        try:
            between = os.fork()
        except OSError:
            os.close(ours)
            os.close(its)
            raise
        if between:
            os.close(its)
            os.waitpid(between, 0)
            return ours
        try:
            if os.fork() == 0:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                nothing = os.open(os.devnull, os.O_RDWR)
                for stream in range(3):  # whoever reads the function's output waits for the end of all that could write to it
                    os.dup2(nothing, stream)
                begin = time.monotonic_ns()
                for _ in self._ask():
                    pass
                os.write(its, _TIMES.pack(begin, time.monotonic_ns()))
        finally:
            os._exit(0)

    def _read(self) -> None:
        try:
            with self._timeline.span("read code ahead"):
                for _ in self._ask():
                    if self._imported:
                        return
        finally:
            self._asked.set()

    def _ask(self) -> Iterator[None]:
        """What the start checks; then the shortest first, so that nobody waits for little behind much: files that imports open,
        libraries, the code pack; then what imports look through. Yields after each.
        """
        found = list(_find(self._manifest.readahead))
        sources = [path for _, path in found if path.suffix == ".py"]
        weights = {weight.file for weight in self._manifest.weights}
        for name in (PROVENANCE, *self._manifest.files):
            if name not in weights and name != PACK:
                read_ahead(self._bundle / name)
        yield
        asked = [(path, self._manifest.touched.get(name)) for name, path in found if path.suffix != ".py"]
        asked += [(self._bundle / name, None) for name in self._manifest.files if name == PACK]
        for path, parts in sorted(asked, key=_length):
            read_ahead(path, parts)
            yield
        if not all(map(in_memory, sources[:: max(len(sources) // SAMPLES, 1)])):
            for path in sources:
                read_ahead(path)
                yield


def _find(names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Files by their paths relative to a sys.path entry: one entry for all in a folder at the top."""
    entries: dict[str, str] = {}
    for name in names:
        top = name.partition("/")[0]
        if top not in entries:
            entries[top] = next((entry for entry in sys.path if entry and os.path.isfile(f"{entry}/{name}")), "")
        if entries[top]:
            yield name, Path(entries[top], name)


def _length(asked: tuple[Path, Parts | None]) -> int:
    """Bytes that are asked for of a file."""
    path, parts = asked
    if parts is not None:
        return sum(length for _, length in parts)
    try:
        return path.stat().st_size
    except OSError:
        return 0
