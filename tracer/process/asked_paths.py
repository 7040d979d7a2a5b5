"""Paths that the traced process asked about without opening them: whether one exists, and what a folder holds.

Questions that native code asks by itself are not seen.
"""

import contextlib
import os
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from tidalctl.artifacts.project import inside
from tidalctl.artifacts.trace.records import PathAsked
from tidalctl.tracer.process.clock import TraceClock

_PHASES = ("import", "init", "handler")
_IGNORED = ("/proc/", "/sys/", "/dev/", *(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "purelib", "platlib")))
_LISTS = ("os.listdir", "os.scandir")  # audit events; glob and pathlib end there
_STDLIB = f"{sysconfig.get_path('stdlib')}/"
_IMPORTER = ("<frozen importlib", f"{_STDLIB}importlib/", f"{_STDLIB}pkgutil.py")  # they look through all of sys.path


class PathRecorder:
    """A context in which each path that the function asks about is noted, once a phase and kind; at import those of the project.

    `os.stat`, `os.lstat` and `os.access` raise no audit events, so they are wrapped. The audit hook can't be removed; leaving the
    context makes it idle.
    """

    def __init__(self, clock: TraceClock, root: str) -> None:
        self._clock = clock
        self._root = inside(root)
        self._asked: dict[tuple[str, str, str], PathAsked] = {}
        self._originals: dict[str, Callable[..., Any]] = {}
        self._active = False
        sys.addaudithook(self._hook)

    def __enter__(self) -> "PathRecorder":
        self._originals = {name: getattr(os, name) for name in ("stat", "lstat", "access")}
        for name, original in self._originals.items():
            wrapped = self._wrapped(original)
            setattr(os, name, wrapped)
            for supported in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
                if original in supported:
                    supported.add(wrapped)
        self._active = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._active = False
        for name, original in self._originals.items():
            setattr(os, name, original)

    def _wrapped(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def ask(path: Any, *arguments: Any, **keywords: Any) -> Any:
            found: Any = False
            try:
                found = original(path, *arguments, **keywords)
                return found
            finally:
                if keywords.get("dir_fd") is None:
                    self._note(path, "exists", found is not False)

        return ask

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in _LISTS and self._active and self._clock.phase in _PHASES:
            path: Any = arguments[0] or "."
            mode = 0
            with contextlib.suppress(OSError, TypeError, ValueError):
                mode = 0 if isinstance(path, int) else self._originals["stat"](path).st_mode
            folder = stat.S_ISDIR(mode)
            # who lists a file learns that it is there
            self._note(path, "listed" if folder or not mode else "exists", bool(mode))

    def _note(self, path: Any, kind: str, found: bool) -> None:
        phase = self._clock.phase
        named = isinstance(path, str | bytes | os.PathLike)
        if phase not in _PHASES or self._clock.apart or not named or _by_python_or_tidalctl():
            return
        given = os.fsdecode(path)
        absolute = os.path.abspath(given)
        if phase == "import" and not (f"{absolute}/" if kind == "listed" else absolute).startswith(self._root):
            return  # of libraries there are thousands
        if not f"{absolute}/".startswith(_IGNORED):
            asked = PathAsked(path=absolute, given=given, phase=phase, kind=kind, found=found)
            self._asked.setdefault((absolute, phase, kind), asked)

    def paths(self) -> Iterable[PathAsked]:
        """In the order in which they were first asked about."""
        return self._asked.values()


def _by_python_or_tidalctl() -> bool:
    """Whether Python's import machinery asks, or tidalctl itself, and not the function or a library that it calls."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(("<frozen", __file__, _STDLIB)):
        if frame.f_code.co_filename.startswith(_IMPORTER):
            return True
        frame = frame.f_back
    return str(frame.f_globals.get("__name__")).startswith("tidalctl.")
