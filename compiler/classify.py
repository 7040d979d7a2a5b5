"""What of the state may be reused for which events. Today's answer is for the whole state: a snapshot with a guard, or none.

A weight is static when its lineage and content are the same for every event. With one traced event that can't be seen by
comparing, so it is argued: an init that read nothing of the event took the same path as for any other.
"""

from collections.abc import Sequence
from typing import Any

from tidalctl.artifacts.manifest import Fallback, Guard
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace import InitCall, Weight
from tidalctl.compiler.snapshot import SnapshotReport
from tidalctl.eventprobe import digest_value


class Classification(Record, frozen=True):
    strategy: str
    guard: Guard
    fallbacks: tuple[Fallback, ...] = ()
    notes: tuple[str, ...] = ()


def classify(
    call: InitCall,
    weights: Sequence[Weight],
    report: SnapshotReport,
    event: Any,
    environ: dict[str, str],
    argv: tuple[str, ...],
) -> Classification:
    """Decide from what the traced init did and what a second, plain run of it gave."""
    cause = _refusal(call, weights, report)
    reads, whole = dict(call.event_reads), digest_value(event) if call.event_whole else ""
    looked = bool(reads or whole)
    guard = Guard(
        static=not looked,
        event_reads=reads,
        event_whole=whole,
        arguments=call.arguments,
        environ=environ,
        argv=argv,
        generators=report.generators,
        memo=report.memo,
    )
    if cause:
        return Classification(strategy="eager", guard=guard, fallbacks=(Fallback(part="state", strategy="eager", cause=cause),))
    notes = []
    if looked:
        seen = "all of the event" if whole else ", ".join(f'event["{key}"]' for key in sorted(reads))
        notes.append(
            f"{call.name} read {seen}: the snapshot answers events that agree in that, others run init the ordinary way"
        )
        if call.static:
            notes.append(f"{call.name} is marked static=True, and it is not")
    elif not call.static:
        notes.append(f"{call.name} read nothing of the event, so the snapshot answers all; static=True would say so")
    return Classification(strategy="snapshot", guard=guard, notes=tuple(notes))


def _refusal(call: InitCall, weights: Sequence[Weight], report: SnapshotReport) -> str:
    """Why there can be no snapshot; empty where there can."""
    if report.cause:
        return report.cause
    if not call.arguments:
        return f"{call.name} was called with an argument that is not JSON, so that no later call can be known to be alike"
    stored = {alias: report.digests.get(name) for name, aliases in report.names.items() for alias in aliases}
    for weight in weights:
        name = weight.names[0]
        if name in stored and stored[name] is not None and stored[name] != weight.digest:
            return (
                f"{name}: init gave another content in a second run, so that it is not static (random numbers without a seed?)"
            )
    if report.differs is not None and call.static:
        return f"{call.name} is marked static=True, and gave another state for event {report.differs}"
    return ""
