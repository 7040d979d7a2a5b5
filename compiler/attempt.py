"""One attempt at a bundle: run the function once more in the way that a strategy needs, and put the strategy's files into a folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tidalctl.artifacts.bundle import remove
from tidalctl.artifacts.manifest import PREFIX, SKELETON, Answer, Guard, Prefix
from tidalctl.artifacts.program import Program
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.tape import TapeRead
from tidalctl.artifacts.trace import Environment, Trace
from tidalctl.compiler.answers import plan_answers, sources_of
from tidalctl.compiler.assemble import access_order, use_digests
from tidalctl.compiler.classify import guard_of, refusal
from tidalctl.compiler.processes import take_capture, take_snapshot
from tidalctl.compiler.snapshot import CaptureReport, CaptureRequest, SnapshotReport, SnapshotRequest
from tidalctl.compiler.strategy import Strategy, writes_of

Progress = Callable[[int, int], None]


class Attempt(Record, frozen=True):
    """What lies in the folder now, and how it is to be used. With a `cause` it can't be."""

    kind: str
    guard: Guard
    report: SnapshotReport
    cause: str = ""
    source: str = ""  # of the script
    dynamic: tuple[str, ...] = ()
    prefix: Prefix | None = None
    answers: tuple[Answer, ...] = ()
    sources: dict[str, tuple[int, int]] = {}  # sizes and times of the files that answers stand for
    captured: CaptureReport | None = None
    notes: tuple[str, ...] = ()


class Workplace(Record, frozen=True):
    """Where an attempt works: the bundle in the making, a folder that is thrown away, and how much goes into a file."""

    trace: Trace
    partial: Path
    work: Path
    shard_size: int | None = None


def attempt(kind: str, strategy: Strategy, place: Workplace, progress: Progress | None) -> Attempt:
    """Make one. Raises what the children's processes raise."""
    if kind == "script":
        return _script(strategy, place, progress)
    if kind == "replay":
        return _replay(strategy, place, progress)
    report = take_snapshot(place.trace.header, _request(strategy, place), progress)
    cause = refusal(kind, strategy, report)
    return Attempt(
        kind=kind,
        guard=guard_of(kind, strategy, report, place.trace),
        report=report,
        cause=cause,
        notes=() if cause else _looked_note(strategy),
    )


def clear(place: Workplace, made: Attempt) -> None:
    """Take a failed attempt's files out of the folder."""
    shards = (*made.report.shards, *(made.captured.shards if made.captured is not None else ()))
    for name in (SKELETON, PREFIX, *(shard.file for shard in shards)):
        remove(place.partial / name)


def _request(strategy: Strategy, place: Workplace) -> SnapshotRequest:
    header, call = place.trace.header, strategy.inits[0].call
    return SnapshotRequest(
        function=header.function,
        root=header.root,
        argv=header.argv,
        events=tuple(event.text for event in header.events),
        report=str(place.work / "snapshot.json"),
        folder=str(place.partial),
        order=tuple(access_order(place.trace)),
        traced={weight.names[0]: weight.digest for weight in strategy.inits[0].weights},
        shard_size=place.shard_size,
        ambient=call.ambient,
        generators=call.generators,
    )


def _script(strategy: Strategy, place: Workplace, progress: Progress | None) -> Attempt:
    """The whole state's skeleton, with what the program starts from in the place of the weights that it makes."""
    planned = strategy.planned
    assert planned is not None
    try:
        source = _source(planned.program, strategy, place.trace)
    except ValueError as error:
        return _impossible(f"the program can't be written down: {error}")
    request = msgspec.structs.replace(_request(strategy, place), dynamic=planned.dynamic, beside=True)
    if planned.bases:
        captured = _captured({base.name: base.identity for base in planned.bases}, strategy, place, place.work, "bases")
        if captured is None:
            return _impossible("init did not make the tensors again from which it makes the dynamic ones")
        request = msgspec.structs.replace(request, bases=str(place.work / captured.shards[0].file))
    report = take_snapshot(place.trace.header, request, progress)
    return Attempt(
        kind="script",
        guard=guard_of("script", strategy, report, place.trace),
        report=report,
        cause=refusal("script", strategy, report),
        source=source,
        dynamic=planned.dynamic,
        prefix=report.prefix,
    )


def _impossible(cause: str) -> Attempt:
    return Attempt(kind="script", guard=Guard(static=False), report=SnapshotReport(outputs=()), cause=cause)


def _source(program: Program, strategy: Strategy, trace: Trace) -> str:
    """The text of dynamic_init.py. Raises ValueError."""
    from tidalctl.compiler.script import program_source  # which looks operators up in torch

    function = trace.header.function
    environment = trace.one(Environment)
    versions = environment.fingerprint.distributions if environment is not None else {}
    requirements = [f"{name}=={version}" for name, version in versions.items() if name in ("torch", "safetensors")]
    return program_source(f"{function.module}:{function.handler}", strategy.inits[0].call.name, program, requirements)


def _replay(strategy: Strategy, place: Workplace, progress: Progress | None) -> Attempt:
    """What init's static statements leave; where they leave nothing, the tensors that it reads; where it reads none, the whole state
    for the events that agree with the one that was traced.
    """
    whole = len(strategy.inits) == 1 and not strategy.request_files and not writes_of(strategy.inits)
    request = msgspec.structs.replace(_request(strategy, place), prefix=True, whole=whole)
    report = take_snapshot(place.trace.header, request, progress)
    kind = "replay" if report.prefix is not None else "snapshot"
    cause = refusal(kind, strategy, report)
    found = Attempt(
        kind=kind,
        guard=guard_of(kind, strategy, report, place.trace),
        report=report,
        prefix=report.prefix,
        cause=cause,
        notes=() if cause or report.prefix is not None else _looked_note(strategy),
    )
    stored = sum(placement.entry.nbytes for placement in report.placements)
    if report.prefix is None and report.placements and not found.cause:
        return found
    answers = plan_answers(strategy.inits, place.trace.header.root, place.trace.header.cwd)
    size = sum(read.made.size for read in _answered_reads(strategy, answers))
    # the static statements leave nothing, or little of what init reads
    if found.cause or report.prefix is None or size > 2 * stored:
        return _answering(found, answers, strategy, place) if answers else _without(found, report)
    return found


def _without(found: Attempt, report: SnapshotReport) -> Attempt:
    return msgspec.structs.replace(found, cause=found.cause or report.no_prefix or "init's static statements leave no tensors")


def _answered_reads(strategy: Strategy, answers: Sequence[Answer]) -> list[TapeRead]:
    """The reads of the first event's init that the template would answer."""
    identities = {answer.identity for answer in answers}
    return [r for r in strategy.inits[0].records if isinstance(r, TapeRead) and r.identity in identities]


def _answering(found: Attempt, answers: tuple[Answer, ...], strategy: Strategy, place: Workplace) -> Attempt:
    sources = sources_of(answers, place.trace.header.root)  # as the files are before they are read again
    order = {digest: place for place, digest in enumerate(use_digests(place.trace))}
    ranked = sorted(answers, key=lambda answer: order.get(answer.digest, len(order)))
    wanted = {answer.weight: answer.identity for answer in ranked if answer.weight}
    captured = _captured(wanted, strategy, place, place.partial, "answers")
    if captured is None:
        return msgspec.structs.replace(found, cause="init did not read the same tensors again")
    usable = found.prefix is not None and not found.cause
    if not usable:
        clear(place, found)
    return msgspec.structs.replace(
        found,
        kind="replay",
        cause="",
        guard=found.guard if usable else _of_the_process(found.guard),
        prefix=found.prefix if usable else None,
        report=found.report
        if usable
        else msgspec.structs.replace(found.report, placements=(), shards=(), digests={}, xxh3={}, globals=(), kept_globals=()),
        answers=answers,
        sources=sources,
        notes=(),
        captured=captured,
    )


def _of_the_process(guard: Guard) -> Guard:
    """A guard for answers alone: init runs anew for each event, and what it drew or read of the event is its own affair."""
    return msgspec.structs.replace(
        guard, static=True, event_reads={}, event_whole="", generators={}, drawn=(), memo=False, memo_parts=False, once=False
    )


def _captured(wanted: dict[str, str], strategy: Strategy, place: Workplace, folder: Path, stem: str) -> CaptureReport | None:
    header = place.trace.header
    request = CaptureRequest(
        function=header.function,
        root=header.root,
        argv=header.argv,
        events=tuple(header.events[init.call.event].text for init in strategy.inits),
        wanted=wanted,
        folder=str(folder),
        stem=stem,
        report=str(place.work / f"{stem}.json"),
        shard_size=place.shard_size if stem != "bases" else None,
    )
    return take_capture(header, request)


def _looked_note(strategy: Strategy) -> tuple[str, ...]:
    call = strategy.inits[0].call
    looked = bool(call.event_reads or call.event_whole)
    if looked:
        return ("the snapshot answers events that agree in that with the traced one, others run init the ordinary way",)
    if not call.static:
        return (f"{call.name} read nothing of the event, so the snapshot answers all; static=True would say so",)
    return ()
