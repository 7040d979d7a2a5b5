"""Dispatch modes are a thread's own. This enters one in every thread that starts, and in tasks that pools run, meanwhile."""

import concurrent.futures.thread
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any


class InEveryThread:
    """A context: threads started inside it, and pool tasks run inside it, run under a mode that `enter()` makes for them."""

    def __init__(self, enter: Callable[[], AbstractContextManager[Any]]) -> None:
        self._enter = enter
        self._inside = threading.local()
        self._threads: set[int] = set()
        self._main = threading.get_ident()

    @property
    def count(self) -> int:
        """How many other threads have done work under the mode."""
        return len(self._threads)

    def __enter__(self) -> "InEveryThread":
        self._run = threading.Thread.run
        self._bootstrap = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]
        self._task = concurrent.futures.thread._WorkItem.run
        outer = self

        # a subclass may override run(), so the wrapping goes around the private method that calls it
        def bootstrap(thread: threading.Thread) -> None:
            outer._call(outer._bootstrap, thread)

        def task(item: Any, *context: Any) -> None:
            outer._call(outer._task, item, *context)

        threading.Thread._bootstrap_inner = bootstrap  # type: ignore[attr-defined]
        concurrent.futures.thread._WorkItem.run = task  # type: ignore[method-assign,assignment]
        self._inside.entered = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        threading.Thread._bootstrap_inner = self._bootstrap  # type: ignore[attr-defined]
        concurrent.futures.thread._WorkItem.run = self._task  # type: ignore[method-assign,assignment]

    def _call(self, original: Callable[..., None], *arguments: Any) -> None:
        if getattr(self._inside, "entered", False):  # a pool's thread that is under the mode already
            original(*arguments)
            return
        self._inside.entered = True
        self._threads.add(threading.get_ident())
        try:
            with self._enter():
                original(*arguments)
        finally:
            self._inside.entered = False
