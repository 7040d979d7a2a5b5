"""Where in its life the traced process is, and what tracing has cost so far. One for a trace; the recorders share it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class TraceClock:
    """The phase (import, init or handler) and the seconds spent in tracing's own work, by kind."""

    def __init__(self) -> None:
        self.phase = "import"
        self.cost = {"hooks": 0.0, "digests": 0.0, "profiler": 0.0}
        self.started = time.perf_counter()
        self._own_work = threading.local()

    @property
    def apart(self) -> bool:
        """Whether what this thread runs is tracing's own, and not the function's."""
        return bool(vars(self._own_work).get("on"))

    @contextmanager
    def entering(self, phase: str) -> Iterator[None]:
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    @contextmanager
    def charging(self, kind: str) -> Iterator[None]:
        begin = time.perf_counter()
        before, self._own_work.on = self.apart, True
        try:
            yield
        finally:
            self._own_work.on = before
            self.cost[kind] += time.perf_counter() - begin

    def total_s(self) -> float:
        return time.perf_counter() - self.started
