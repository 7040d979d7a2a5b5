"""`tidalctl run --report`: what a timeline and a report hold, as the record that a page is made from. Imported only for that."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidalctl.report.machine import describe_machine
from tidalctl.report.markup import machine_line
from tidalctl.report.records import Mark, Span, Stall, Start
from tidalctl.report.start_page import start_page
from tidalctl.runtime.process.timeline import Timeline


def write_page(path: Path, timeline: Timeline, report: Mapping[str, Any]) -> None:
    torch = getattr(sys.modules.get("torch"), "__version__", "")
    record = start_record(timeline, report, machine_line(describe_machine(str(torch))))
    path.write_text(start_page(record), encoding="utf-8")


def start_record(timeline: Timeline, report: Mapping[str, Any], machine: str) -> Start:
    """One start, in seconds from its beginning. `report` is what `run --json` prints."""

    def after(moment_ns: int) -> float:
        return round((moment_ns - timeline.started_ns) / 1e9, 9)

    return Start(
        bundle=Path(report["bundle"]).absolute().name.removesuffix(".bundle"),
        digest=report["digest"],
        strategy=report["strategy"],
        fallback=report["fallback"],
        verified=report["verified"],
        ttft_s=report["ttft_s"],
        total_s=report["total_s"],
        own_s=report["own_s"],
        weights_bytes=report["weights_bytes"],
        read_bytes=report["streamed_bytes"],
        misses=report["misses"],
        machine=machine,
        phases=dict(report["phases"]),
        spans=tuple(Span(name, after(begin), after(end), thread) for name, begin, end, thread in timeline.spans),
        marks=tuple(Mark(name, after(at)) for name, at in sorted(timeline.marks.items(), key=lambda mark: mark[1])),
        stalls=tuple(Stall(weight, module, after(begin), after(end)) for weight, module, begin, end in timeline.stalls),
        weight_misses=report.get("weight_misses"),
        io=str(report.get("io") or ""),
    )
