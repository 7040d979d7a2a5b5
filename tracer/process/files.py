"""Files that the traced process opened: through Python's audit events, and, for native readers, through its memory map.

A native library that reads a file without mapping it (a tokenizer's `from_file`) is seen only where lineage/loaders.py wraps it.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from tidalctl.artifacts.bundle.directory import file_digest
from tidalctl.artifacts.project import is_own
from tidalctl.artifacts.trace.records import DIGESTED, FileOpened, PathAsked
from tidalctl.tracer.process.clock import TraceClock
from tidalctl.tracer.process.touched_pages import touched_parts

_IGNORED = ("/proc/", "/sys/", "/dev/")


class FileRecorder:
    """Notes each regular file opened for reading, once a phase. An audit hook can't be removed; `stop` makes it idle."""

    def __init__(self, clock: TraceClock, root: str) -> None:
        self._clock = clock
        self._root = root
        self.written: set[str] = set()  # what the program itself opened for writing, or gave another file's name
        self._init_wrote: set[str] = set()
        self._opened: dict[tuple[str, str], str] = {}
        self._sources: dict[str, None] = {}
        self._active = True
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in ("open", "os.rename") or not self._active:
            return
        if event == "os.rename":
            given, written = arguments[1], True
            given = os.fsdecode(given) if isinstance(given, os.PathLike) else given
        else:
            given, _, flags = arguments
            written = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
        if isinstance(given, bytes):
            given = os.fsdecode(given)
        if not isinstance(given, str):
            return
        if written:
            self.written.add(os.path.abspath(given))
            if self._clock.phase == "init":
                self._init_wrote.add(os.path.abspath(given))
        else:
            self.note(given)

    def note(self, given: str) -> None:
        path = os.path.abspath(given)
        if path.endswith((".py", ".pyc")) and self._clock.phase != "init":
            self._sources.setdefault(path)
        code = (".pyc", ".py") if self._clock.phase == "init" else (".pyc", ".py", ".pth")  # in init it is a checkpoint
        if not path.startswith(_IGNORED) and not path.endswith(code):
            self._opened.setdefault((path, self._clock.phase), given)

    def stop(self) -> None:
        self._active = False

    def files(self) -> Iterable[FileOpened]:
        """What was opened and is still a file, then what is mapped now and was not seen opening."""
        seen = set()
        for (path, phase), given in self._opened.items():
            try:
                status = os.stat(path)
            except OSError:
                continue
            if os.path.isfile(path):
                seen.add(path)
                kept = phase != "init" and path not in self.written and status.st_size <= DIGESTED
                yield FileOpened(
                    path=path,
                    given=given,
                    phase=phase,
                    size=status.st_size,
                    mtime_ns=status.st_mtime_ns,
                    written=_digest(path) if path in self._init_wrote else None,
                    sha256=digest_of_the_project(path, self._root) if kept else "",
                )
        mapped = sorted(mapped_files() - seen)
        touched = touched_parts(path for path in mapped if ".so" in path)  # weights are gigabytes, and are read by group
        for path in mapped:
            try:
                status = os.stat(path)
            except OSError:
                continue
            yield FileOpened(
                path=path,
                given="",
                phase="handler",
                size=status.st_size,
                mtime_ns=status.st_mtime_ns,
                mapped=True,
                touched=touched.get(path, ()),
            )

    def missing(self) -> Iterable[PathAsked]:
        """Files of the project that were to be opened and are not there: whoever tries that asks whether they are."""
        for (path, phase), given in self._opened.items():
            if is_own(path, self._root) and not os.path.lexists(path):
                yield PathAsked(path=path, given=given, phase=phase, kind="exists", found=False)

    def sources(self) -> tuple[str, ...]:
        """Python files that were opened outside init, in order, without the bytecode of modules that are there to be seen.

        The importer's own readings of what had no bytecode are among them, and bytecode of modules that failed or put another object
        in their place.
        """
        seen = {getattr(getattr(module, "__spec__", None), "cached", None) for module in list(sys.modules.values())}
        return tuple(path for path in self._sources if path not in seen)


def digest_of_the_project(path: str, root: str) -> str:
    """sha256 of a file of the project's own; empty of any other."""
    return _digest(path) if is_own(path, root) else ""


def _digest(path: str) -> str:
    """sha256 of a file; empty of one that is large, or that can't be read."""
    try:
        return file_digest(Path(path)) if os.path.getsize(path) <= DIGESTED else ""
    except OSError:
        return ""


def mapped_files() -> set[str]:
    """The regular files in this process's memory map: shared libraries, and files that native readers mapped."""
    found = set()
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            parts = line.rstrip("\n").split(maxsplit=5)
            if len(parts) == 6 and parts[5].startswith("/") and not parts[5].startswith(_IGNORED):
                found.add(parts[5])
    return found
