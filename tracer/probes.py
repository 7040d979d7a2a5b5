"""Paths that init asks about without opening them, of those that the event names: what it does may hang on whether they are there."""

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any


class PathProbes:
    """A context in which `os.stat`, and so `os.path.exists` and `Path.exists`, notes paths with a text of the event in them.

    `found` says of each path whether it was there. Listing a folder, `os.access` and calls from C are not noted.
    """

    def __init__(self, event: dict[str, Any]) -> None:
        self.found: dict[str, bool] = {}
        self._texts = tuple(value for value in event.values() if isinstance(value, str) and value)

    def __enter__(self) -> "PathProbes":
        self._stat: Callable[..., os.stat_result] = os.stat
        os.stat = self._noting
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.stat = self._stat

    def _noting(self, path: Any, *arguments: Any, **keywords: Any) -> os.stat_result:
        there = False
        try:
            result = self._stat(path, *arguments, **keywords)
            there = True
            return result
        finally:
            if isinstance(path, str | os.PathLike) and any(text in (name := str(os.fspath(path))) for text in self._texts):
                self.found.setdefault(name, there)
