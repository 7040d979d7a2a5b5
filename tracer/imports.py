"""Imports as they happen: order, file, self time. Times come from wrapping the standard loaders' exec_module.

Modules that a loader of another make produces (built-in, namespace packages, code that fills sys.modules by hand) are added
at the end with no time.
"""

import importlib.machinery
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any

from tidalctl.artifacts.trace import Import
from tidalctl.tracer.clock import TraceClock

_LOADERS = (
    importlib.machinery.SourceFileLoader,
    importlib.machinery.SourcelessFileLoader,
    importlib.machinery.ExtensionFileLoader,
)


class ImportRecorder:
    """A context in which imports are recorded. `after(name)` is called when a module has run, before its importer goes on."""

    def __init__(self, clock: TraceClock, after: Callable[[ModuleType], None]) -> None:
        self._clock = clock
        self._after = after
        self._known = frozenset(sys.modules)
        self._began: dict[str, tuple[int, str]] = {}
        self._times: dict[str, tuple[float, float]] = {}
        self._stacks = threading.local()
        self._originals: list[tuple[type, Callable[..., Any] | None, Callable[..., Any]]] = []

    def __enter__(self) -> "ImportRecorder":
        for loader in _LOADERS:
            self._originals.append((loader, loader.__dict__.get("exec_module"), loader.exec_module))
            loader.exec_module = self._timed(loader.exec_module)  # type: ignore[method-assign]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for loader, own, _ in self._originals:
            if own is None:
                del loader.exec_module  # it was inherited
            else:
                loader.exec_module = own  # type: ignore[method-assign]

    def _timed(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def exec_module(loader: Any, module: ModuleType) -> None:
            stack: list[float] = self._stacks.__dict__.setdefault("stack", [])
            self._began.setdefault(module.__name__, (len(self._began), self._clock.phase))
            stack.append(0.0)
            begin = time.perf_counter()
            try:
                original(loader, module)
            finally:
                total = time.perf_counter() - begin
                inner = stack.pop()
                if stack:
                    stack[-1] += total
                self._times[module.__name__] = (total - inner, total)
            self._after(module)

        return exec_module

    def imports(self) -> list[Import]:
        """Every module that came in since this was made, in the order in which their imports began."""
        found = []
        for name, module in list(sys.modules.items()):
            if name in self._known or module is None or name.startswith("tidalctl"):
                continue
            order, phase = self._began.get(name, (len(self._began), self._clock.phase))
            self_s, total_s = self._times.get(name, (0.0, 0.0))
            file = getattr(getattr(module, "__spec__", None), "origin", None) or getattr(module, "__file__", None) or ""
            if not isinstance(file, str) or file in ("built-in", "frozen"):
                file = ""
            found.append((order, Import(name=name, file=file, self_s=self_s, total_s=total_s, phase=phase)))
        return [record for _, record in sorted(found, key=lambda pair: pair[0])]
