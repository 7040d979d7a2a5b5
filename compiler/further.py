"""States besides the main one: which of those that were written are kept in the bundle."""

import msgspec

from tidalctl.artifacts.bundle.directory import remove
from tidalctl.artifacts.bundle.manifest import Fallback, Guard, HeldState, skeleton_file
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.trace.records import InitCall
from tidalctl.compiler.attempt import Attempt, Workplace
from tidalctl.compiler.computed import computed_part
from tidalctl.compiler.conditions import further_refusal, state_guard, why_not_requested
from tidalctl.compiler.snapshot.records import SnapshotReport, StateReport, is_generator
from tidalctl.compiler.strategy import Strategy
from tidalctl.report.terminal import count_text, size_text


def kept_states(made: Attempt, strategy: Strategy, place: Workplace, *, refused: Reason | None = None) -> Attempt:
    """Return the attempt with the states besides the main one that can be used, and the causes of the others.

    With `refused` none can, for that cause. What was written of a state that is not kept is removed, but for weights that a kept one
    shares.
    """
    reports, kept, lost = made.report.further, [], []
    for number, init in strategy.further.items():
        report, events = reports.get(number, StateReport()), made.report.states
        cause = refused or why_not_requested(init) or further_refusal(init, report, events.get(init.call.event, {}))
        if cause is None:
            guard = state_guard("snapshot", init, report, place.trace, computed_part(init, report))
            kept.append(HeldState(number, init.call.name, _ordered(guard, report, made.report)))
        else:
            lost.append(lost_state(init.call, cause))
    while orphans := [state for state in kept if not _stand(state.guard, made.report, kept)]:
        kept = [state for state in kept if state not in orphans]
        lost += [lost_state(strategy.further[orphan.number].call, Cause.NEEDS_ANOTHER_STATE.of()) for orphan in orphans]
    numbers = {state.number for state in kept}
    main = _ordered(made.guard, made.report, made.report) if strategy.further else made.guard
    made = msgspec.structs.replace(made, guard=main)
    if not _stand(main, made.report, kept):
        made = msgspec.structs.replace(made, cause=made.cause or Cause.NEEDS_ANOTHER_STATE.of())
    left = _left(made, numbers)
    for number, report in reports.items():
        if number not in numbers:
            remove(place.partial / skeleton_file(number))
        if number not in left:
            for shard in report.shards:
                remove(place.partial / shard.file)
    report = msgspec.structs.replace(made.report, further=left)
    return msgspec.structs.replace(made, further=tuple(kept), lost=tuple(lost), report=report)


def _ordered(guard: Guard, report: StateReport, all_reports: SnapshotReport) -> Guard:
    """Return the guard with what it must find of other states: see Guard."""
    reports = {0: all_reports, **all_reports.further}
    before = [number for number in report.before if number not in reports or reports[number].leaves_more]
    ordered = bool(before or report.leaves_more)
    return msgspec.structs.replace(
        guard, leaves_more=report.leaves_more, order=tuple(before) if ordered else None, items=report.added
    )


def _stand(guard: Guard, main: StateReport, kept: list[HeldState]) -> bool:
    """Whether the states that a state must find are held by the bundle."""
    held = {state.number for state in kept} | ({0} if main.cause is None else set())
    return held.issuperset({*guard.after, *(guard.order or ())})


def in_words(made: Attempt, strategy: Strategy) -> list[str]:
    """Return a line for each state that is kept besides the main one: which call gives it, and what it adds to the bundle."""
    lines = []
    for state in made.further:
        call, report = strategy.further[state.number].call, made.report.further[state.number]
        own = [placement.entry.nbytes for placement in report.placements if not is_generator(placement.entry.name)]
        where = f", called at {call.called_at}" if call.called_at else ""
        shared = f", and {count_text(len(report.shares), 'weight')} of another state" if report.shares else ""
        adds = f"{count_text(len(own), 'weight')}, {size_text(sum(own))}" if own else "no weights of its own"
        lines.append(f"{state.init}{where}: {adds}{shared}")
    return lines


def lost_state(call: InitCall, cause: Reason) -> Fallback:
    """Say that the call of an init runs in each start."""
    where = f", called at {call.called_at}" if call.called_at else ""
    return Fallback.of(f"the state of {call.name}{where}", "eager", cause)


def _left(made: Attempt, numbers: set[int]) -> dict[int, StateReport]:
    """Return the reports of states whose weights stay: those of the kept ones, and those that they, or the main one, share."""
    reports = made.report.further
    shared = {name for report in (made.report, *(reports[number] for number in numbers)) for name in report.shares.values()}
    return {
        number: report
        for number, report in reports.items()
        if number in numbers or any(placement.entry.name in shared for placement in report.placements)
    }
