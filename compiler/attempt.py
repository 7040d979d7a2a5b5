"""One attempt at a bundle: run the function once more in the way that a strategy needs, and put the strategy's files into a folder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.bundle.directory import remove
from tidalctl.artifacts.bundle.manifest import Answer, Fallback, Guard, HeldState, skeleton_file
from tidalctl.artifacts.bundle.weights_file import StoredWeights
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.records import Function, Record
from tidalctl.artifacts.trace.file import Trace
from tidalctl.compiler.access_order import access_order, use_digests
from tidalctl.compiler.conditions import guard_of, refusal, why_not_requested
from tidalctl.compiler.dynamic.answers import plan_answers, sources_of
from tidalctl.compiler.handler_runs import HandlerRuns
from tidalctl.compiler.snapshot.processes import plain_run, take_capture, take_snapshot
from tidalctl.compiler.snapshot.records import CaptureRequest, SnapshotReport, SnapshotRequest, StateReport, StoredContent
from tidalctl.compiler.states import new_states, state_requests
from tidalctl.compiler.strategy import Strategy, writes_of

Progress = Callable[[int, int], None]


class Attempt(Record, frozen=True):
    """What lies in the folder now, and how it is to be used. With a `cause` it can't be."""

    kind: str
    guard: Guard
    report: SnapshotReport
    cause: Reason | None = None
    source: str = ""  # of the script
    dynamic: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    sources: dict[str, tuple[int, int]] = {}  # sizes and times of the files that answers stand for
    captured: StoredWeights | None = None
    further: tuple[HeldState, ...] = ()
    lost: tuple[Fallback, ...] = ()  # states besides the main one that can't be used
    notes: tuple[str, ...] = ()


class Workplace(Record, frozen=True):
    """Where an attempt works: the bundle in the making, a folder that is thrown away, and how much goes into a file.

    `runs` counts the calls of the handler that it all takes.
    """

    trace: Trace
    partial: Path
    work: Path
    runs: HandlerRuns
    shard_size: int | None = None


def attempt(kind: str, strategy: Strategy, place: Workplace, progress: Progress | None) -> Attempt:
    """Make one. Raises what the children's processes raise."""
    if kind == "script":
        return _script(strategy, place, progress)
    if kind == "replay":
        return _replay(strategy, place, progress)
    if kind == "eager":
        return _plain(strategy, place)
    return _snapshot(strategy, place, progress)


def _snapshot(strategy: Strategy, place: Workplace, progress: Progress | None) -> Attempt:
    """The whole state, for every event, or for those that agree with the traced one in what init read."""
    place.runs.plain += len(place.trace.header.events)
    report = _taken(_request(strategy, place), place, progress)
    cause = refusal("snapshot", strategy, report)
    if cause is None and not report.init:  # the event that asked for it in the trace does so no more, when it is answered alone
        cause = Cause.NOT_REPRODUCIBLE.of(init=strategy.inits[0].call.name, what="whether it is called")
    return Attempt(
        kind="snapshot",
        guard=guard_of("snapshot", strategy, report, place.trace),
        report=report,
        cause=cause,
        notes=() if cause else _looked_note(strategy, place.trace.header.function),
    )


def _plain(strategy: Strategy, place: Workplace) -> Attempt:
    """No state at all, where no init was called: what the plain function answers is all that there is to compare."""
    header = place.trace.header
    place.runs.plain += len(header.events)
    report = plain_run(header, header.events, place.work, ())
    return Attempt(
        kind="eager", guard=guard_of("eager", strategy, report, place.trace), report=report, cause=Cause.NO_INIT.of()
    )


def clear(place: Workplace, made: Attempt) -> None:
    """Take a failed attempt's files out of the folder."""
    for number, report in {0: made.report, **made.report.further}.items():
        for name in (skeleton_file(number), *(shard.file for shard in report.shards)):
            remove(place.partial / name)
    for shard in made.captured.shards if made.captured is not None else ():
        remove(place.partial / shard.file)


def _request(strategy: Strategy, place: Workplace) -> SnapshotRequest:
    header = place.trace.header
    unwanted = {number for number, init in strategy.further.items() if why_not_requested(init) is not None}
    return SnapshotRequest(
        function=header.function,
        root=header.root,
        argv=header.argv,
        events=header.events,
        report=str(place.work / "snapshot.json"),
        folder=str(place.partial),
        states=tuple(state for state in state_requests(place.trace) if state.number not in unwanted),
        order=tuple(access_order(place.trace)),
        shard_size=place.shard_size,
    )


def _taken(request: SnapshotRequest, place: Workplace, progress: Progress | None, *, with_main: bool = False) -> SnapshotReport:
    """Run the function on all events, and once more on each later one that asks for new states: they are as a process has them that
    answers no other.

    With `with_main` the main state, which may depend on the event, is that of the first process.
    """
    header, known = place.trace.header, {state.number for state in request.states}
    new = {event: known.intersection(numbers) for event, numbers in new_states(place.trace).items()}
    first = new.pop(0, set()) | ({0} if with_main else set())
    report = take_snapshot(header, msgspec.structs.replace(request, wanted=tuple(sorted(first))), progress)
    for event, numbers in sorted(new.items()):
        if wanted := numbers - first:
            place.runs.plain += 1
            more = take_snapshot(
                header,
                msgspec.structs.replace(
                    request,
                    events=(header.events[event],),
                    wanted=tuple(sorted(wanted)),
                    stored=tuple(_stored(report)),
                    outline="",
                ),
                progress,
            )
            report = _with_states(report, more, event, wanted)
    return report


def _stored(report: SnapshotReport) -> Iterator[StoredContent]:
    for state in (report, *report.further.values()):
        for placement in state.placements:
            entry = placement.entry
            yield StoredContent(
                name=entry.name, digest=state.digests[entry.name], device=state.devices[entry.name], address=entry.address
            )


def _with_states(report: SnapshotReport, more: SnapshotReport, event: int, numbers: set[int]) -> SnapshotReport:
    """Return a report with the states that a process gave which answered one event alone."""
    fields: dict[str, Any] = {"alone": {**report.alone, event: more.outputs[0]}}
    fields["states_alone"] = {**report.states_alone, event: more.states.get(0, {})}
    fields["further"] = report.further | {number: state for number, state in more.further.items() if number in numbers}
    if 0 in numbers:
        fields |= {name: getattr(more, name) for name in StateReport.__struct_fields__} | {"init_s": more.init_s}
    return msgspec.structs.replace(report, **fields)


def _without_main(request: SnapshotRequest) -> SnapshotRequest:
    """Return the request with nothing written of the main state."""
    states = (state if state.number else msgspec.structs.replace(state, store=False) for state in request.states)
    return msgspec.structs.replace(request, states=tuple(states))


def _script(strategy: Strategy, place: Workplace, progress: Progress | None) -> Attempt:
    """The whole state's skeleton, with what the program starts from in the place of the weights that it makes."""
    planned = strategy.planned
    assert planned is not None
    request = msgspec.structs.replace(_request(strategy, place), dynamic=planned.dynamic)
    again = None
    if planned.bases:
        captured = _captured({base.name: base.identity for base in planned.bases}, strategy, place, place.work, "bases")
        again = _not_again(strategy) if captured is None else None
        bases = str(place.work / captured.shards[0].file) if captured is not None else ""
        request = msgspec.structs.replace(request, bases=bases)
        request = request if captured is not None else _without_main(request)
    place.runs.plain += len(place.trace.header.events)
    report = _taken(request, place, progress, with_main=True)
    return Attempt(
        kind="script",
        guard=guard_of("script", strategy, report, place.trace),
        report=report,
        cause=again or refusal("script", strategy, report),
        source=strategy.source,
        dynamic=planned.dynamic,
    )


def _not_again(strategy: Strategy) -> Reason:
    return Cause.NOT_REPRODUCIBLE.of(init=strategy.inits[0].call.name, what="the tensors that it makes on its way")


def _replay(strategy: Strategy, place: Workplace, progress: Progress | None) -> Attempt:
    """Init itself, with its reads of static tensors answered from the bundle.

    Where a single event was traced, nobody can tell which reads are static: then the whole state, for events that agree with that one.
    """
    header, inits = place.trace.header, strategy.inits
    answers = plan_answers(inits, header.root, header.cwd)
    if not answers and len(inits) == 1 and not strategy.request_files and not writes_of(inits):
        return _snapshot(strategy, place, progress)
    request = _without_main(_request(strategy, place))
    place.runs.plain += len(header.events)
    report = _taken(request, place, progress, with_main=True)
    made = Attempt(kind="replay", guard=guard_of("replay", strategy, report, place.trace), report=report)
    if not answers:
        return msgspec.structs.replace(made, cause=writes_of(inits) or Cause.NOTHING_STATIC.of(init=inits[0].call.name))
    sources = sources_of(answers, header.root)  # as the files are before they are read again
    order = {digest: place for place, digest in enumerate(use_digests(place.trace))}
    ranked = sorted(answers, key=lambda planned: order.get(planned.digest, len(order)))
    wanted = {planned.answer.weight: planned.identity for planned in ranked}
    captured = _captured(wanted, strategy, place, place.partial, "answers")
    if captured is None:
        return msgspec.structs.replace(made, cause=_not_again(strategy))
    found = tuple(planned.answer for planned in answers)
    return msgspec.structs.replace(made, answers=found, sources=sources, captured=captured)


def _captured(wanted: dict[str, str], strategy: Strategy, place: Workplace, folder: Path, stem: str) -> StoredWeights | None:
    header = place.trace.header
    request = CaptureRequest(
        function=header.function,
        init=strategy.inits[0].call.name,
        root=header.root,
        argv=header.argv,
        events=tuple(header.events[init.call.event] for init in strategy.inits),
        wanted=wanted,
        folder=str(folder),
        stem=stem,
        report=str(place.work / f"{stem}.json"),
        shard_size=place.shard_size if stem != "bases" else None,
    )
    place.runs.until_init += len(request.events)
    return take_capture(header, request)


def _looked_note(strategy: Strategy, function: Function) -> tuple[str, ...]:
    call = strategy.inits[0].call
    looked = bool(call.event_reads or call.event_whole)
    if looked:
        return ("the snapshot answers events that agree in that with the traced one, others run init the ordinary way",)
    if not call.static:
        how = f"trace with --init {function.init} --static" if function.init else "static=True"
        return (f"{call.name} read nothing of the event, so the snapshot answers all; {how} would say so",)
    return ()
