"""`compile`: trace → snapshot → classify → ship → write → prove → publish, each a small pass."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from tidalctl.artifacts.bundle import (
    clear_stale_partials,
    partial_name,
    publish,
    refuse_existing,
    remove,
    sync_tree,
    unlisted_files,
)
from tidalctl.artifacts.errors import CheckFailed, TidalError
from tidalctl.artifacts.manifest import (
    CODE,
    Fallback,
    Manifest,
)
from tidalctl.artifacts.records import Record, digest_json
from tidalctl.artifacts.trace import (
    EnvironReads,
    FileOpened,
    InitCall,
    Invocation,
    Trace,
    Weight,
    read_trace,
)
from tidalctl.compiler.assemble import access_order, write_files
from tidalctl.compiler.classify import Classification, classify
from tidalctl.compiler.explain import Verdict
from tidalctl.compiler.processes import plain_run, run_from_bundle, same_output, take_snapshot
from tidalctl.compiler.ship import copy_shipment, plan_shipment
from tidalctl.compiler.snapshot import SnapshotReport, SnapshotRequest

Progress = Callable[[int, int], None]
Say = Callable[[str], None]


class Compiled(Record, frozen=True):
    """A bundle in its place, and what there is to say about it."""

    manifest: Manifest
    verdict: Verdict
    call: InitCall
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def compile_trace(
    path: Path,
    output: Path,
    *,
    shard_size: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
) -> Compiled:
    """Make the bundle `output` from the trace at `path`, prove it, and give it its name.

    The function's init is run once more for its snapshot, so its project and checkpoint must still be there. Raises TidalError
    where the trace can't be used, the output exists, or what it was traced with has changed.
    """
    refuse_existing(output, force)
    trace = read_trace(path)
    call = _usable(trace, path)
    output = output.absolute()
    clear_stale_partials(output)
    # both beside the bundle, under names that the next compile knows to clear
    partial, work = partial_name(output), partial_name(output.with_name(f"{output.name}.work"))
    partial.mkdir()
    try:
        work.mkdir()
        compiled = _build(trace, call, partial, work, shard_size, progress, say)
        sync_tree(partial)
        publish(partial, output)
    finally:
        remove(partial)
        remove(work)
    return compiled


def _usable(trace: Trace, path: Path) -> InitCall:
    """The trace's init, where all is there that a compile needs."""
    if not trace.complete:
        raise TidalError(f"{path} is incomplete: the function raised or was killed", f"what it did: tidalctl inspect {path}")
    call = trace.one(InitCall)
    if call is None:
        raise TidalError(
            f"{path}: the function called no init, so there is no state to take",
            "mark the function that builds it with @tidalctl.init, or name it: tidalctl trace … --init app:load",
        )
    source = Path(trace.header.root, trace.header.function.source)
    if not source.is_file():
        raise TidalError(f"{source}, which was traced, is gone", "trace the function where it is now")
    for record in trace.of(FileOpened):
        if record.phase == "init" and not record.mapped and record.size > 0 and not Path(record.path).exists():
            raise TidalError(f"{record.path}, which init read in the trace, is gone", "put it back, or trace again without it")
    return call


def _build(
    trace: Trace, call: InitCall, partial: Path, work: Path, shard_size: int | None, progress: Progress | None, say: Say
) -> Compiled:
    header, weights = trace.header, trace.of(Weight)
    names = {weight.index: weight.names[0] for weight in weights}
    order = tuple(names[use.weight] for use in access_order(trace))
    request = SnapshotRequest(
        function=header.function,
        root=header.root,
        argv=header.argv,
        events=tuple(event.text for event in header.events),
        report=str(work / "snapshot.json"),
        folder=str(partial),
        order=order,
        shard_size=shard_size,
        ambient=call.ambient,
        generators=call.generators,
    )
    say("running the function once more, plainly, to take its state")
    report = take_snapshot(header, request, progress)
    _refuse_changed_checkpoint(trace, weights, report)
    reproducible, report = _reproducible(trace, call, report, work, say)
    event = json.loads(header.events[call.event].text)
    shipment = plan_shipment(trace)
    copy_shipment(shipment, Path(header.root), partial / CODE)
    classification = classify(
        call, weights, report, event, (trace.one(EnvironReads) or EnvironReads(variables={})).variables, header.argv
    )
    manifest = write_files(trace, call, classification, report, reproducible, partial)
    say("answering the traced events from the bundle in a fresh process")
    manifest = _prove(trace, call, manifest, classification, report, partial)
    warnings = [*shipment.warnings, *_clear_written(partial, manifest)]
    notes = classification.notes
    if report.kept_globals and manifest.strategy == "snapshot":
        notes = (*notes, f"init also sets {', '.join(report.kept_globals)}: kept with the state")
    verdict = Verdict(events=len(header.events), reproducible=reproducible)
    return Compiled(manifest=manifest, verdict=verdict, call=call, notes=notes, warnings=tuple(warnings))


def _refuse_changed_checkpoint(trace: Trace, weights: list[Weight], report: SnapshotReport) -> None:
    """A file that init reads and that changed since the trace, with weights that changed too, makes the trace worthless."""
    stored = {alias: report.digests.get(name) for name, aliases in report.names.items() for alias in aliases}
    if all(stored.get(weight.names[0]) in (weight.digest, None) for weight in weights) and not report.cause:
        return
    for record in trace.of(FileOpened):
        if record.phase == "init" and not record.mapped:
            status = os.stat(record.path)
            if (status.st_size, status.st_mtime_ns) != (record.size, record.mtime_ns):
                raise TidalError(
                    f"{record.path} has changed since the trace", f"trace again: tidalctl trace {_target(trace)} …"
                )


def _target(trace: Trace) -> str:
    function = trace.header.function
    return f"{Path(trace.header.root, function.source)}:{function.handler}"


def _reproducible(trace: Trace, call: InitCall, report: SnapshotReport, work: Path, say: Say) -> tuple[bool, SnapshotReport]:
    """Whether two plain runs answer alike, and build alike: where they do not, the report gets the cause.

    The traced run is the first; only where it differs is a third one needed, since tracing may have been the reason.
    """
    traced = [invocation.output for invocation in trace.of(Invocation)]
    alike = [digest_json(json.loads(text)) for text in report.outputs] == traced
    if alike and (report.cause or call.skeleton == report.skeleton):
        return True, report
    say(f"its {'state' if alike else 'answer'} is not the traced one; running it again to see whether it ever is the same")
    again = plain_run(trace.header, [event.text for event in trace.header.events], work)
    if again.skeleton != report.skeleton:
        cause = f"what {call.name} builds is not the same in two runs (random numbers, times, hashes or addresses in it?)"
        report = msgspec.structs.replace(report, cause=report.cause or cause)
    pairs = zip(report.outputs, again.outputs, strict=True)
    return all(same_output(json.loads(one), json.loads(other)) for one, other in pairs), report


def _prove(
    trace: Trace,
    call: InitCall,
    manifest: Manifest,
    classification: Classification,
    report: SnapshotReport,
    partial: Path,
) -> Manifest:
    """Answer every traced event from the bundle in a fresh process. A snapshot that answers wrongly is given up for eager init.

    Raises CheckFailed where even that answers otherwise than the plain function.
    """
    difference = _difference(trace, manifest, report, partial)
    if difference and manifest.strategy == "snapshot":
        given_up = Fallback(part="state", strategy="eager", cause=f"the proof: {difference}")
        classification = msgspec.structs.replace(classification, strategy="eager", fallbacks=(given_up,))
        manifest = write_files(trace, call, classification, report, manifest.reproducible, partial)
        difference = _difference(trace, manifest, report, partial)
    if difference:
        raise CheckFailed(f"the bundle does not answer as the plain function does: {difference}", "nothing was written")
    return manifest


def _clear_written(partial: Path, manifest: Manifest) -> list[str]:
    """Take out what the handler wrote beside its own source during the proof: a bundle holds what its manifest lists."""
    found = unlisted_files(partial, manifest)
    for name in found:
        remove(partial / name)
    return [f"the function writes {name.removeprefix('code/')} beside its own source, and so into the bundle" for name in found]


def _difference(trace: Trace, manifest: Manifest, report: SnapshotReport, partial: Path) -> str:
    for index, (event, expected) in enumerate(zip(trace.header.events, report.outputs, strict=True)):
        answer = run_from_bundle(partial, trace.header, event.text)
        if "failed" in answer:
            return f"event {index}: {answer['failed']}"
        if manifest.reproducible and not same_output(answer["output"], json.loads(expected)):
            return f"event {index}: the answer differs"
    return ""
