"""`compile`: traces → decide → ship → attempt, write and prove, from the best strategy downwards → publish."""

import json
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.bundle.directory import (
    clear_stale_partials,
    partial_name,
    publish,
    remove,
    sync_tree,
    unlisted_files,
)
from tidalctl.artifacts.bundle.manifest import CODE, Fallback, Manifest
from tidalctl.artifacts.bundle.output_paths import refuse_existing, refuse_folder
from tidalctl.artifacts.bundle.start_times import StartTimes
from tidalctl.artifacts.errors import CheckFailed, FunctionError, TidalError
from tidalctl.artifacts.records import Record, digest_json
from tidalctl.artifacts.trace.file import Trace, read_trace
from tidalctl.artifacts.trace.records import FileOpened, Import, InitCall, Invocation
from tidalctl.compiler.assemble import add_start_times, write_files
from tidalctl.compiler.attempt import Attempt, Workplace, attempt, clear
from tidalctl.compiler.code.project_files import changed_since, copy_shipment, plan_shipment
from tidalctl.compiler.conditions import not_reproducible, of_the_event
from tidalctl.compiler.explain import Verdict
from tidalctl.compiler.merged_trace import merge_traces
from tidalctl.compiler.snapshot.clock_reads import clock_reads
from tidalctl.compiler.snapshot.processes import plain_run, run_from_bundle
from tidalctl.compiler.snapshot.records import SnapshotReport
from tidalctl.compiler.strategy import Strategy, decide
from tidalctl.compiler.suggest import suggestion
from tidalctl.function.output_comparison import first_difference, same_output
from tidalctl.function.target import refuse_unknown_fields

Progress = Callable[[int, int], None]
Say = Callable[[str], None]

DIFFERS = "the answer differs"
SHOWN = 80  # characters of an event that a message shows
PLANNED = 64 * 2**20  # bytes of weights from which on it is worth two more starts to plan their loading well


class Compiled(Record, frozen=True):
    """A bundle in its place, and what there is to say about it."""

    manifest: Manifest
    verdict: Verdict
    call: InitCall
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def compile_traces(
    paths: Sequence[Path],
    output: Path,
    *,
    vary: Sequence[str] = (),
    check_events: Sequence[str] = (),
    shard_size: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
) -> Compiled:
    """Make the bundle `output` from one or more traces of one function, prove it, and give it its name.

    The function's init is run once more for its snapshot, so its project and checkpoint must still be there. `vary` are fields of
    the event that may vary besides those that the traces name. `check_events` are JSON texts of events that the bundle is proved on
    as well. Raises TidalError where a trace can't be used, the output exists, or what it was traced with has changed.
    """
    refuse_existing(output, force, "bundle")
    refuse_folder(output)
    traces = [read_trace(path) for path in paths]
    for trace, path in zip(traces, paths, strict=True):
        _refuse_unusable(trace, path)
    trace = merge_traces(traces, paths, vary)
    refuse_unknown_fields(trace.header.vary, (json.loads(event.text) for event in trace.header.events))
    output = output.absolute()
    clear_stale_partials(output)
    # both beside the bundle, under names that the next compile knows to clear
    partial, work = partial_name(output), partial_name(output.with_name(f"{output.name}.work"))
    partial.mkdir()
    try:
        work.mkdir()
        place = Workplace(trace=trace, partial=partial, work=work, shard_size=shard_size)
        compiled = _build(place, check_events, progress, say)
        sync_tree(partial)
        publish(partial, output)
    finally:
        remove(partial)
        remove(work)
    return compiled


def _refuse_unusable(trace: Trace, path: Path) -> None:
    """Raise TidalError unless all is there that a compile needs."""
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
    if name := changed_since(trace):
        raise TidalError(f"{name} has changed since the trace", _again(trace))
    for record in trace.of(FileOpened):
        if record.phase == "init" and not record.mapped and record.size > 0 and not Path(record.path).exists():
            raise TidalError(f"{record.path}, which init read in the trace, is gone", "put it back, or trace again without it")


def _build(place: Workplace, check_events: Sequence[str], progress: Progress | None, say: Say) -> Compiled:
    trace, partial = place.trace, place.partial
    strategy = decide(trace)
    call = strategy.inits[0].call
    shipment = plan_shipment(trace)
    copy_shipment(shipment, Path(trace.header.root), partial / CODE)
    fallbacks, notes = list(strategy.fallbacks), list(strategy.notes)
    checks = [_plain_check(place, text) for text in check_events]
    for kind in {"script": ("script", "replay"), "replay": ("replay",), "snapshot": ("snapshot",)}[strategy.kind]:
        say("running the function once more, plainly, to take its state")
        made = attempt(kind, strategy, place, progress)
        _refuse_changed_checkpoint(strategy, trace, made.report)
        reproducible, made = _reproducible(place, call, made, say)
        if not made.cause:
            manifest = write_files(trace, made, tuple(fallbacks), reproducible, partial)
            say("answering the traced events from the bundle in a fresh process")
            difference, times = _proof(place, manifest, made.report, say)
            difference = difference or _checked(place, manifest, checks, say)
            made = msgspec.structs.replace(made, cause=f"the proof: {difference}" if difference else "")
        if not made.cause:
            add_start_times(partial, _steadier(place, manifest, times, say))
            break
        clear(place, made)
        lower = "replay" if kind == "script" else "eager"
        fallbacks.append(Fallback(part="state", strategy=lower, cause=made.cause))
    if made.cause:
        made = msgspec.structs.replace(made, kind="eager", guard=of_the_event(made.guard), dynamic=(), answers=(), notes=())
        manifest = write_files(trace, made, tuple(fallbacks), reproducible, partial)
        say("answering the traced events from the bundle in a fresh process")
        if difference := _proof(place, manifest, made.report, say)[0] or _checked(place, manifest, checks, say):
            raise CheckFailed(f"the bundle does not answer as the plain function does: {difference}", "nothing was written")
    warnings = [*shipment.warnings, *_clear_written(partial, manifest)]
    if made.report.kept_globals and manifest.strategy != "eager":
        notes.append(f"init also sets {', '.join(made.report.kept_globals)}: kept with the state")
    if manifest.strategy != "eager":
        notes += _clock_notes(trace, call)
    notes += _suggestions(trace, strategy)
    verdict = Verdict(
        events=len(trace.header.events) + len(checks),
        checked=len(checks),
        reproducible=reproducible,
        static=strategy.static,
        init_s=made.report.init_s,
        traced_init_s=call.duration_s,
    )
    return Compiled(manifest=manifest, verdict=verdict, call=call, notes=(*notes, *made.notes), warnings=tuple(warnings))


def _source_of(trace: Trace, call: InitCall) -> tuple[Path, str]:
    """The file of the module that defines init, and init's name in it."""
    module, _, name = call.name.partition(":")
    function = trace.header.function
    files = {record.name: record.file for record in trace.of(Import)}
    source = Path(trace.header.root, function.source) if module == function.module else Path(files.get(module) or os.devnull)
    return source, name


def _suggestions(trace: Trace, strategy: Strategy) -> list[str]:
    """The change that marks what of init comes before its first read of the event, where there is any."""
    calls = [init.call for init in strategy.inits]
    lines = [call.first_event_line for call in calls if call.first_event_line is not None]
    if not lines or any(call.static for call in calls):
        return []
    found = suggestion(*_source_of(trace, calls[0]), min(lines))
    return [found] if found is not None else []


def _clock_notes(trace: Trace, call: InitCall) -> list[str]:
    source, name = _source_of(trace, call)
    return [
        f"{source.name}, line {line}: {call.name} looks at the clock ({text}); what it makes of that stays as of now"
        for line, text in clock_reads(source, name)
    ]


def _refuse_changed_checkpoint(strategy: Strategy, trace: Trace, report: SnapshotReport) -> None:
    """A file that init reads and that changed since the trace, with weights that changed too, makes the trace worthless."""
    if not not_reproducible(strategy, report) and not report.cause:
        return
    for record in trace.of(FileOpened):
        if record.phase == "init" and not record.mapped:
            status = os.stat(record.path)
            if (status.st_size, status.st_mtime_ns) != (record.size, record.mtime_ns):
                raise TidalError(f"{record.path} has changed since the trace", _again(trace))


def _again(trace: Trace) -> str:
    function = trace.header.function
    return f"trace again: tidalctl trace {Path(trace.header.root, function.source)}:{function.handler} …"


def _reproducible(place: Workplace, call: InitCall, made: Attempt, say: Say) -> tuple[bool, Attempt]:
    """Whether two plain runs answer alike, and build alike: where they do not, the attempt gets the cause.

    The traced run is the first; only where it differs is a third one needed, since tracing may have been the reason.
    """
    trace, report = place.trace, made.report
    traced = [invocation.output for invocation in trace.of(Invocation)]
    alike = [digest_json(json.loads(text)) for text in report.outputs] == traced
    if alike and (made.cause or call.skeleton == report.skeleton):
        return True, made
    say(f"its {'state' if alike else 'answer'} is not the traced one; running it again to see whether it ever is the same")
    again = plain_run(trace.header, [event.text for event in trace.header.events], place.work)
    if not report.outputs:  # nothing was run in this attempt
        return [digest_json(json.loads(text)) for text in again.outputs] == traced, msgspec.structs.replace(made, report=again)
    if again.skeleton != report.skeleton and made.kind != "replay":
        cause = f"what {call.name} builds is not the same in two runs (random numbers, times, hashes or addresses in it?)"
        made = msgspec.structs.replace(made, cause=made.cause or cause)
    pairs = zip(report.outputs, again.outputs, strict=True)
    return all(same_output(json.loads(one), json.loads(other)) for one, other in pairs), made


def _clear_written(partial: Path, manifest: Manifest) -> list[str]:
    """Take out what the handler wrote beside its own source during the proof: a bundle holds what its manifest lists."""
    found = unlisted_files(partial, manifest)
    for name in found:
        remove(partial / name)
    return [f"the function writes {name.removeprefix('code/')} beside its own source, and so into the bundle" for name in found]


def _proof(place: Workplace, manifest: Manifest, report: SnapshotReport, say: Say) -> tuple[str, StartTimes | None]:
    """What the bundle makes otherwise than the plain function for a traced event, empty where nothing; and how the first started."""
    header, times = place.trace.header, None
    for index, event in enumerate(header.events):
        answer = run_from_bundle(place.partial, header, event.text)
        if "failed" in answer:
            return f"event {index}: {answer['failed']}", None
        if answer["strategy"] != manifest.strategy and (index == 0 or manifest.strategy == "script"):
            return f"event {index}: {answer['fallback']}", None
        times = times or _start_times(place.trace, answer)
        if not manifest.reproducible:
            continue
        plain, state = json.loads(report.outputs[index]), report.states.get(index, {})
        found = _other(manifest, answer, plain, state)
        if found and index:  # the plain run answered all events in one process, and the function may remember
            alone = plain_run(header, [event.text], place.work)
            plain, state = json.loads(alone.outputs[0]), alone.states.get(0, {})
            found = _other(manifest, answer, plain, state)
        if found:
            if found == DIFFERS:  # how is said, and not kept: a bundle holds no answers
                say(f"it answers event {index} otherwise: {first_difference(answer['output'], plain)}")
            return f"event {index}: {found}", None
    return "", times


class _Check(Record, frozen=True):
    """An event of `--check-event`, and what the plain function makes of it in a process of its own."""

    event: str
    plain: SnapshotReport


def _plain_check(place: Workplace, event: str) -> _Check:
    try:
        return _Check(event=event, plain=plain_run(place.trace.header, [event], place.work))
    except FunctionError as error:
        raise FunctionError(
            f"--check-event {event[:SHOWN]}: {error.message}", "name events that the function answers"
        ) from None


def _checked(place: Workplace, manifest: Manifest, checks: Sequence[_Check], say: Say) -> str:
    """What the bundle makes otherwise than the plain function for an event of `--check-event`; empty where nothing.

    Such an event may be answered another way than the traced ones, but not otherwise.
    """
    if checks:
        say("answering the check events from the bundle")
    for check in checks:
        answer = run_from_bundle(place.partial, place.trace.header, check.event)
        found = str(answer.get("failed", ""))
        if not found and manifest.reproducible:
            plain = json.loads(check.plain.outputs[0])
            found = _other(manifest, answer, plain, check.plain.states.get(0, {}))
            if found == DIFFERS:
                say(f"it answers a check event otherwise: {first_difference(answer['output'], plain)}")
        if found:
            return f"--check-event {check.event[:SHOWN]}: {found}"
    return ""


def _steadier(place: Workplace, manifest: Manifest, first: StartTimes | None, say: Say) -> StartTimes | None:
    """Medians of three starts, where there are weights enough to plan for: a machine's times vary by a tenth and more."""
    if first is None or sum(weight.nbytes for weight in manifest.weights) < PLANNED:
        return first
    say("starting it twice more, for the times that plan goes by")
    event = place.trace.header.events[0].text
    answers = [run_from_bundle(place.partial, place.trace.header, event, state=False) for _ in range(2)]
    again = [_start_times(place.trace, answer) for answer in answers]
    starts = [first, *(times for times in again if times is not None)]
    return StartTimes(
        **{name: statistics.median(getattr(start, name) for start in starts) for name in StartTimes.__struct_fields__}
    )


def _start_times(trace: Trace, answer: dict[str, Any]) -> StartTimes | None:
    """The start that a proof's report tells of, without what the proof itself took. None where no state was restored."""
    traced = trace.one(Invocation)
    if traced is None or answer.get("ready_s") is None or answer.get("opened_s") is None:
        return None
    own = answer["phases"].get("state digests", 0.0) + answer["stalled_s"]
    return StartTimes(
        begin_s=answer["opened_s"],
        ready_s=answer["ready_s"],
        compute_s=max(answer["ttft_s"] - answer["ready_s"] - own, 0.0),
        traced_compute_s=traced.first_piece_s or traced.first_call_s,
    )


def _other(manifest: Manifest, answer: dict[str, Any], plain: Any, state: dict[str, str]) -> str:
    if not same_output(answer["output"], plain):
        return DIFFERS
    made = answer["state"]
    if manifest.strategy == "eager" or made is None or made == state:
        return ""
    return f"{min(name for name in {*state, *made} if state.get(name) != made.get(name))} is not what init makes"
