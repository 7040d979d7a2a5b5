"""Tells before a CUDA graph is captured: while one is, nobody in the process may wait for copies, allocate, or pin memory."""

import threading
from collections.abc import Callable
from typing import Any

import torch

_CHANGING = threading.Lock()  # the method, which several threads begin and end to watch


class CaptureWatch:
    """Calls back before a capture begins, in its thread, between `begin` and `end`. There may be several.

    The method of torch's that begins one is replaced meanwhile. Where somebody else has replaced it since, what is left there just
    passes calls on.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._watches = False
        self._original: Any = None

    def begin(self) -> None:
        with _CHANGING:
            if self._watches:
                return
            self._watches = True
            self._original = original = torch.cuda.CUDAGraph.capture_begin

            def capture_begin(graph: Any, *arguments: Any, **keywords: Any) -> Any:
                if self._watches:
                    self._call()
                return original(graph, *arguments, **keywords)

            capture_begin.watch = self  # type: ignore[attr-defined]
            torch.cuda.CUDAGraph.capture_begin = capture_begin  # type: ignore[method-assign, assignment]

    def end(self) -> None:
        with _CHANGING:
            self._watches = False
            # and those that ended before this one, and were below it
            while (watch := getattr(torch.cuda.CUDAGraph.capture_begin, "watch", None)) is not None and not watch._watches:
                torch.cuda.CUDAGraph.capture_begin = watch._original  # type: ignore[method-assign]
