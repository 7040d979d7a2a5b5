"""The report of a start: as `run --json` prints it, as a table for a person, and as the page of `run --report`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tidalctl.artifacts.cause import ordinary_way
from tidalctl.report.phases import PHASES, TABLE
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.template import Template

if TYPE_CHECKING:
    from tidalctl.report.records import Start

SCHEMA = 1


def start_report(
    bundle: str,
    template: Template,
    output: Any,
    *,
    streamed: bool,
    start: str = "process",
    no_image: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Return the report of a start that has ended.

    `start` is its kind: "process" for a process of its own, "image" for one restored from the bundle's image, or what a host used:
    "fork", "spare" or "spawn". `no_image` is the code and the text of the cause why the image was not used.
    """
    timeline, weights, imports = template.timeline, template.weights, template.imports
    verify, fallback = weights.options.verify, template.fallback
    used = template.states.used_bytes
    unforeseen, prewarm = imports.unforeseen(), template.prewarm.report()
    return {
        "schema": SCHEMA,
        "bundle": bundle,
        "digest": template.manifest.digest,
        "output": output,
        "streamed": streamed,
        "start": start,
        "image_cause": no_image[0] if no_image else None,
        "image_fallback": no_image[1] if no_image else None,
        "strategy": template.strategy,
        "fallback": fallback.text if fallback else None,
        "cause": fallback.code if fallback else None,
        "restored": sorted(template.restored),
        "other_inits": list(template.other_inits),
        "verified": verify != "off",
        "verify": verify,
        "ttft_s": timeline.since_start("first token"),
        "total_s": timeline.since_start("done"),
        "own_s": timeline.own_s(),
        "phases": {name: round(seconds, 6) for name, seconds in timeline.phases().items()},
        "started_ns": timeline.started_ns,
        "first_token_ns": timeline.marks.get("first token"),
        "done_ns": timeline.marks.get("done"),
        "weights_bytes": used,
        "unused_bytes": weights.bytes - used,
        "streamed_bytes": min(weights.streamed, used),
        "io": weights.io if used else None,
        "weight_misses": weights.misses,
        "stalled_s": round(weights.stalled_ns / 1e9, 6),
        "prewarm": msgspec.to_builtins(prewarm),
        "prewarm_coverage": prewarm.coverage,
        "opened_s": timeline.since_start("weights asked for"),
        "ready_s": timeline.since_start("state made"),
        "misses": len(unforeseen),
        "unforeseen_modules": unforeseen,
        "modules": imports.counts(),
        "import_cache": imports.import_cache.counts(),
        **({"state": template.state_digests} if template.wants_digests else {}),
    }


def phase_table(report: Mapping[str, Any]) -> str:
    """Return the start in a few lines for a person: where the time went, what was read, and what was not foreseen."""
    from tidalctl.report.terminal import size_text  # which no start that prints JSON needs

    phases = report["phases"]
    lines = [f"{PHASES[name].label:<24}{phases[name]:8.3f} s" for name in TABLE if name in phases]
    if report["ttft_s"] is None:
        lines.append(f"no output               done after {report['total_s']:.3f} s")
    else:
        lines.append(f"{'first token after':<24}{report['ttft_s']:8.3f} s   done after {report['total_s']:.3f} s")
    weights, read = report["weights_bytes"], size_text(report["streamed_bytes"])
    checked = "checked" if report["verified"] else "not checked"
    unused = f", {size_text(report['unused_bytes'])} of it unused" if report["unused_bytes"] else ""
    taken = (
        f"weights {size_text(weights)} ({checked}), {read} of it read from disk"
        if weights
        else f"no weights from the bundle{unused.replace(' of it', ' in it')}"
    )
    lines.append(f"{taken}; modules not foreseen: {report['misses']}")
    modules = report["modules"]
    if modules["changed"]:
        lines.append(f"modules whose source has changed since compile, imported the ordinary way: {modules['changed']}")
    if report["import_cache"]["changed"]:
        lines.append("a folder that a library looks through has changed since compile: it looked through it itself")
    if modules["unusable"]:
        lines.append(f"modules imported the ordinary way: {modules['unusable']} ({modules['cause']})")
    if report["fallback"]:
        lines.append(f"{ordinary_way(report['fallback'])} ({report['cause']})")
    lines += [f"{name} ran: the bundle holds no state of it" for name in report["other_inits"]]
    return "\n".join(f"  {line}" for line in lines)


def write_page(path: Path, timeline: Timeline, report: Mapping[str, Any]) -> None:
    """Write the start as a page of HTML."""
    from tidalctl.report.machine import describe_machine
    from tidalctl.report.markup import machine_line
    from tidalctl.report.start_page import start_page

    torch = getattr(sys.modules.get("torch"), "__version__", "")
    record = start_record(timeline, report, machine_line(describe_machine(str(torch))))
    path.write_text(start_page(record), encoding="utf-8")


def start_record(timeline: Timeline, report: Mapping[str, Any], machine: str) -> "Start":
    """Return what a page is made from, in seconds from the start's beginning."""
    from tidalctl.report.records import Mark, Span, Stall, Start

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
