"""Imports as they happen: order, file, self time. Times come from wrapping the standard loaders' exec_module.

Modules that a loader of another make produces (built-in, namespace packages, code that fills sys.modules by hand) are added
at the end with no time.
"""

import importlib.machinery
import math
import sys
import threading
import time
from collections.abc import Callable, Container
from types import ModuleType, TracebackType
from typing import Any

from tidalctl.artifacts.trace.records import Import
from tidalctl.tracer.process.clock import TraceClock
from tidalctl.tracer.process.files import digest_of_the_project

_LOADERS = (
    importlib.machinery.SourceFileLoader,
    importlib.machinery.SourcelessFileLoader,
    importlib.machinery.ExtensionFileLoader,
)


class ImportRecorder:
    """A context in which imports are recorded. `after(name)` is called when a module has run, before its importer goes on."""

    def __init__(self, clock: TraceClock, after: Callable[[ModuleType], None], root: str) -> None:
        self._clock = clock
        self._root = root
        self._digests: dict[str, str] = {}
        self._after = after
        self._known = frozenset(sys.modules)
        self._own: set[str] = set()  # of what tracing asked for itself
        self._began: dict[str, tuple[int, str]] = {}
        self._aside: set[str] = set()  # of those, what another thread than the main one imported
        self._importers: dict[str, str] = {}
        self._times: dict[str, tuple[float, float]] = {}
        self._stacks = threading.local()
        self._originals: list[tuple[type, Callable[..., Any] | None, Callable[..., Any]]] = []

    def __enter__(self) -> "ImportRecorder":
        for loader in _LOADERS:
            original = getattr(loader, "exec_module")  # noqa: B009 - typeshed does not say that all of them have it
            self._originals.append((loader, loader.__dict__.get("exec_module"), original))
            setattr(loader, "exec_module", self._timed(original))  # noqa: B010
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for loader, own, _ in self._originals:
            if own is None:
                delattr(loader, "exec_module")  # it was inherited
            else:
                setattr(loader, "exec_module", own)  # noqa: B010

    def _timed(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def exec_module(loader: Any, module: ModuleType) -> None:
            stack: list[list[Any]] = self._stacks.__dict__.setdefault("stack", [])
            name, file = module.__name__, _file_of(module)
            if self._clock.apart:
                self._own.add(name)
            self._importers.setdefault(name, stack[-1][0] if stack else "")
            if name not in self._began and threading.current_thread() is not threading.main_thread():
                self._aside.add(name)
            self._began.setdefault(name, (len(self._began), self._clock.phase))
            stack.append([name, 0.0])  # and the seconds of what it imports itself
            if file.endswith(".py"):
                self._digests.setdefault(name, digest_of_the_project(file, self._root))
            begin = time.perf_counter()
            try:
                original(loader, module)
            finally:
                total = time.perf_counter() - begin
                _, inner = stack.pop()
                if stack:
                    stack[-1][1] += total
                self._times[name] = (total - inner, total)
            self._after(module)

        return exec_module

    def imports(self, written: Container[str]) -> list[Import]:
        """Every module: those that were there before the function, those of its main thread in the order in which the imports
        began, and the rest, whose order may be another each time, by their names.

        Of a module that is `written` by the function itself no digest is kept.
        """
        found: list[tuple[float, str, Import]] = [
            (-1, name, _record(name, sys.modules[name], 0.0, 0.0, "start"))
            for name in sorted(self._known)
            if sys.modules.get(name) is not None and not name.startswith("tidalctl") and name != "__main__"
        ]
        for name, module in list(sys.modules.items()):
            if name in self._known or name in self._own or module is None or name.startswith("tidalctl"):
                continue
            began, phase = self._began.get(name, (0, self._clock.phase))
            aside = name in self._aside
            order = math.inf if aside or name not in self._began else began
            self_s, total_s = self._times.get(name, (0.0, 0.0))
            digest = "" if _file_of(module) in written else self._digests.get(name, "")
            made = _record(name, module, self_s, total_s, phase, self._importers.get(name, ""), digest, aside)
            found.append((order, name, made))
        return [record for *_, record in sorted(found, key=lambda one: one[:2])]


def _record(
    name: str,
    module: ModuleType,
    self_s: float,
    total_s: float,
    phase: str,
    importer: str = "",
    digest: str = "",
    aside: bool = False,
) -> Import:
    return Import(
        name=name,
        file=_file_of(module),
        self_s=self_s,
        total_s=total_s,
        phase=phase,
        importer=importer,
        plain=_plain(name, module),
        sha256=digest,
        aside=aside,
    )


def _plain(name: str, module: ModuleType) -> bool:
    """Whether importing the module again would run what Python itself makes of its source file."""
    spec = getattr(module, "__spec__", None)
    loader = getattr(spec, "loader", None)
    return (
        type(loader) is importlib.machinery.SourceFileLoader
        and vars(loader) == {"name": name, "path": getattr(spec, "origin", None)}  # nobody has hung a function on it
        and getattr(spec, "name", None) == name
    )


def _file_of(module: ModuleType) -> str:
    file = getattr(getattr(module, "__spec__", None), "origin", None) or getattr(module, "__file__", None) or ""
    return file if isinstance(file, str) and file not in ("built-in", "frozen") else ""
