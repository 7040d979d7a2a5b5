"""What happened when in one start: spans on the monotonic clock, summed into phases, written as Chrome trace events."""

import json
import os
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from tidalctl.report.phases import OWN_PHASES


def process_start_ns() -> int:
    """When the kernel started this process, on the clock of time.monotonic_ns. Its resolution is a tick, 10 ms as a rule."""
    with open("/proc/self/stat", "rb") as file:
        ticks = int(file.read().rpartition(b")")[2].split()[19])
    since_boot = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return since_boot - (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns())


def process_entered_ns() -> int:
    """When this process came to our first line; now, where it began with another program."""
    modules = [sys.modules.get(name) for name in ("__main__", "tidalctl.__main__")]
    entered: int = max(getattr(module, "ENTERED", 0) for module in modules)
    return entered or time.monotonic_ns()


class Timeline:
    """Spans and marks, until `close`. Thread-safe: readers add theirs beside the main thread's."""

    def __init__(self, started_ns: int, entered_ns: int) -> None:
        self.restart(started_ns, entered_ns)

    def restart(self, started_ns: int, entered_ns: int) -> None:
        """Forget what was, and begin with another process: one that was forked has the times of its caller."""
        self._closed = False
        self.started_ns = min(started_ns, entered_ns)
        self.marks: dict[str, int] = {"entered": entered_ns}
        self.spans: list[tuple[str, int, int, str]] = []
        self.stalls: list[tuple[str, str, int, int]] = []  # weight, the module that needed it, begin, end
        self.add("process start", self.started_ns, entered_ns)

    def add(self, name: str, begin_ns: int, end_ns: int, thread: str = "") -> None:
        """Of this thread, or of what goes by the name of `thread`: another process, say."""
        if not self._closed:
            self.spans.append((name, begin_ns, end_ns, thread or threading.current_thread().name))

    def add_stall(self, weight: str, module: str, begin_ns: int, end_ns: int) -> None:
        """The main thread stood still for a weight. Part of whatever phase it stood in: `phases` knows nothing of it."""
        if not self._closed:
            self.stalls.append((weight, module, begin_ns, end_ns))

    def mark(self, name: str) -> None:
        if not self._closed:
            self.marks.setdefault(name, time.monotonic_ns())

    def close(self) -> None:
        """The start is over, and what comes later, of a second event, is no part of it."""
        self._closed = True

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time a piece of work. A span inside another on the same thread is taken out of the outer one's phase."""
        begin = time.monotonic_ns()
        try:
            yield
        finally:
            self.add(name, begin, time.monotonic_ns())

    def phases(self, threads: Collection[str] = ("MainThread",)) -> dict[str, float]:
        """Seconds by phase on the main thread, or on `threads` that worked in turn; nested spans count once, for the inner phase."""
        main = sorted((s for s in self.spans if s[3] in threads), key=lambda s: (s[1], -s[2]))
        total: dict[str, float] = {}
        open_spans: list[tuple[str, int]] = []
        for name, begin, end, _ in main:
            while open_spans and open_spans[-1][1] <= begin:
                open_spans.pop()
            if open_spans:
                total[open_spans[-1][0]] -= (min(end, open_spans[-1][1]) - begin) / 1e9
            total[name] = total.get(name, 0.0) + (end - begin) / 1e9
            open_spans.append((name, end))
        return total

    def own_s(self) -> float:
        """Seconds of the main thread that were tidalctl's own, up to and with the last output."""
        return sum(seconds for name, seconds in self.phases().items() if name in OWN_PHASES)

    def since_start(self, mark: str) -> float | None:
        at = self.marks.get(mark)
        return None if at is None else (at - self.started_ns) / 1e9

    def chrome_trace(self) -> bytes:
        """The start as Chrome trace events (microseconds from the process's start), as Perfetto and chrome://tracing open them."""
        threads = {name: index for index, name in enumerate(dict.fromkeys(span[3] for span in self.spans))}
        pid = os.getpid()
        events: list[dict[str, object]] = [
            {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}} for name, tid in threads.items()
        ]
        events += [
            {
                "ph": "X",
                "name": name,
                "cat": "tidalctl" if name in OWN_PHASES else "function",
                "pid": pid,
                "tid": threads[thread],
                "ts": (begin - self.started_ns) / 1e3,
                "dur": (end - begin) / 1e3,
            }
            for name, begin, end, thread in self.spans
        ]
        events += [
            {
                "ph": "X",
                "name": f"stall: {weight}",
                "cat": "stall",
                "pid": pid,
                "tid": threads["MainThread"],
                "ts": (begin - self.started_ns) / 1e3,
                "dur": (end - begin) / 1e3,
                "args": {"weight": weight, "module": module},
            }
            for weight, module, begin, end in self.stalls
        ]
        events += [
            {"ph": "i", "s": "p", "name": name, "pid": pid, "tid": 0, "ts": (at - self.started_ns) / 1e3}
            for name, at in self.marks.items()
        ]
        return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}).encode()
