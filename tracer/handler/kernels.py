"""Kernel signatures: dispatch records joined with the profiler's events.

Each launch runs inside a profiler range that carries its signature's number. On a CPU a signature's time is that of its ranges;
on a device it is that of the kernels which the runtime calls inside the ranges launched, found by correlation id.
"""

import sys
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch

from tidalctl.artifacts.records import KernelSignature
from tidalctl.tracer.handler.first_uses import RANGE, AccessRecord


def kernel_signatures(record: AccessRecord, profile: torch.profiler.profile) -> list[KernelSignature]:
    """The signatures of one call, deduplicated, in the order of their first launches.

    A launch that the profiler did not see (another thread's) counts with the time that the dispatch mode measured around it.
    """
    events = _events(profile)
    ranges, launched = _ranges(events), _device_kernels(events)
    found = []
    for (operator, operands), number in record.signatures.items():
        kernels = launched.get(number, {})
        seen = sum(kernels.values()) if kernels else ranges.get(number, 0.0)
        signature = KernelSignature(
            operator=operator,
            operands=operands,
            count=record.counts[number],
            time_s=seen or record.seconds[number],
            kernels=tuple(sorted(kernels)),
        )
        found.append(signature)
    return found


@contextmanager
def without_inductor() -> Iterator[None]:
    """A context in which torch has no `_inductor` where nobody has imported it yet.

    The profiler looks at one of its settings when it starts (for CUDA graphs that inductor would make), and would import it for that,
    with 800 modules that the function may have no use for and that the trace would list as the function's.
    """
    lazy: set[str] = getattr(torch, "_lazy_modules", set())
    put_back = "_inductor" in lazy and "torch._inductor" not in sys.modules
    if put_back:
        lazy.discard("_inductor")
    try:
        yield
    finally:
        if put_back:
            lazy.add("_inductor")


def _events(profile: torch.profiler.profile) -> list[Any]:
    results = profile.profiler.kineto_results if profile.profiler is not None else None
    return [] if results is None else list(results.events())


def _ranges(events: list[Any]) -> dict[int, float]:
    seconds: dict[int, float] = defaultdict(float)
    for event in events:
        if event.name().startswith(RANGE) and event.device_type() == torch.profiler.DeviceType.CPU:
            seconds[int(event.name().removeprefix(RANGE))] += event.duration_ns() / 1e9
    return seconds


class Spans:
    """Ranges of time, each with its number, in the order of their beginnings. Those of one thread; they may lie in one another."""

    def __init__(self, spans: Sequence[tuple[int, int, int]]) -> None:
        self._spans = sorted(spans)
        self._begins = [begin for begin, _, _ in self._spans]
        self._ends = list(accumulate((end for _, end, _ in self._spans), max))  # the last end of all up to here

    def at(self, time: int) -> int | None:
        """The number of the innermost range around a time, which is the one that began last."""
        place = bisect_right(self._begins, time) - 1
        while place >= 0 and self._ends[place] >= time:
            if self._spans[place][1] >= time:
                return self._spans[place][2]
            place -= 1
        return None


def _device_kernels(events: list[Any]) -> dict[int, dict[str, float]]:
    """By signature: the kernels that ran for it on a device and their seconds. Operators are placed in the range around them."""
    kernels = [e for e in events if e.device_type() != torch.profiler.DeviceType.CPU and e.linked_correlation_id() > 0]
    if not kernels:
        return {}
    around = Spans(
        [
            (e.start_ns(), e.start_ns() + e.duration_ns(), int(e.name().removeprefix(RANGE)))
            for e in events
            if e.name().startswith(RANGE) and e.device_type() == torch.profiler.DeviceType.CPU
        ]
    )
    # a kernel is linked to an operator; the driver's calls have numbers of their own, which may be an operator's
    calls = {
        e.correlation_id(): e.start_ns()
        for e in events
        if e.device_type() == torch.profiler.DeviceType.CPU and e.linked_correlation_id() == 0
    }
    found: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for kernel in kernels:
        at = calls.get(kernel.linked_correlation_id())
        number = around.at(at) if at is not None else None
        if number is not None and not kernel.name().startswith(RANGE):
            found[number][kernel.name()] += kernel.duration_ns() / 1e9
    return found
