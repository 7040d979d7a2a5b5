"""Whether what a second, plain run gave may stand for the init of other starts, and what those must agree in.

A weight is static when its lineage and content are the same for every event. Where init read nothing of the event, that needs no
second event: it took the same path as for any other.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tidalctl.artifacts.bundle.manifest import Guard
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import FileOpened
from tidalctl.artifacts.trace.tape import DOUBT, DRAWN, UNWRITTEN
from tidalctl.compiler.code.shipment import Shipment
from tidalctl.compiler.computed import computed_part
from tidalctl.compiler.dynamic.recorded_init import EventInit
from tidalctl.compiler.snapshot.records import SnapshotReport, StateReport
from tidalctl.compiler.strategy import Strategy, read_of_event
from tidalctl.compiler.variables import environ_reads
from tidalctl.function.command_line import argv_digest
from tidalctl.function.event_probe import digest_value

UNKNOWN_PART = "what the state holds besides tensors, or how it is built"


def guard_of(kind: str, strategy: Strategy, report: SnapshotReport, trace: Trace) -> Guard:
    """What a start must agree in for the main state. Of no init, in nothing."""
    if not strategy.inits:
        return Guard(static=True)
    init = strategy.inits[0]
    # a replay holds what was read, and init computes the rest anew
    computed = None if kind == "replay" else computed_part(init, report, strategy.planned if kind == "script" else None)
    return state_guard(kind, init, report, trace, computed)


def state_guard(kind: str, init: EventInit, report: StateReport, trace: Trace, computed: str | None) -> Guard:
    """What a start must agree in for a state: for `snapshot` also what init read of the event, where it read any."""
    call, event = init.call, init.event
    fields = dict(call.event_reads) if kind == "snapshot" else {}
    whole = digest_value(event) if call.event_whole and kind == "snapshot" else ""
    reads = environ_reads(trace)
    # the trace has noted them where the first init was called
    own = {name: seen for name, seen in report.environ_at_init.items() if name in reads.variables}
    at_init = own if report.before else reads.at_init
    return Guard(
        static=not (fields or whole),
        event_reads=fields,
        event_whole=whole,
        arguments="" if kind == "replay" else call.arguments,
        environ=reads.variables,
        environ_at_init=at_init,
        argv=argv_digest(trace.header.argv, [trace.header.root]),
        settings=report.settings,
        moved=report.moved,
        directory=report.directory,
        assigned=report.assigned,
        generators=report.generators,
        drawn=report.drawn,
        later_calls=report.later_calls,
        after=report.after,
        computed=computed,
    )


def with_left_out(guard: Guard, shipment: Shipment, root: Path) -> Guard:
    """Return the guard with what hangs on files that are not shipped: their content, and variables that come from them."""
    texts = {name: (root / name).read_bytes() for name in shipment.secrets}
    return msgspec.structs.replace(
        guard,
        left_out={name: hashlib.sha256(text).hexdigest() for name, text in texts.items()},
        may_be_unset=tuple(name for name in guard.environ_at_init if any(name.encode() in text for text in texts.values())),
    )


def of_the_event(guard: Guard) -> Guard:
    """What of a guard says for which events a state is: a start that takes none asks for nothing of the process."""
    return Guard(static=guard.static, event_reads=guard.event_reads, event_whole=guard.event_whole, arguments=guard.arguments)


def refusal(kind: str, strategy: Strategy, report: SnapshotReport) -> Reason | None:
    """Return why the snapshot that was taken, as a whole state or for a script, can't be used."""
    call = strategy.inits[0].call
    if report.cause is not None:
        return report.cause
    if not call.arguments:
        return Cause.ARGUMENTS_NOT_JSON.of(init=call.name, place=f" at {call.called_at}" if call.called_at else "")
    if kind == "script" and report.later_calls != "fresh":
        return Cause.STATE_KEPT.of(init=call.name)
    if kind == "script" and report.globals_differ is not None:
        return Cause.GLOBAL_DIFFERS_BY_EVENT.of(init=call.name, name=report.globals_differ)
    return not_reproducible(strategy, report) or _unseeded(strategy.inits[0])


def why_not_requested(init: EventInit) -> Reason | None:
    """Return why no state besides the main one is taken of a call, as far as the trace tells."""
    call = init.call
    if call.event_reads or call.event_whole:
        return Cause.EVENT_READ_BESIDES.of(init=call.name, what=read_of_event([call]))
    if not call.arguments:
        return Cause.ARGUMENTS_NOT_JSON.of(init=call.name, place=f" at {call.called_at}" if call.called_at else "")
    return Cause.ARGUMENT_WRITTEN.of(init=call.name, what=call.writes) if call.writes else None


def further_refusal(init: EventInit, report: StateReport, made: dict[str, str]) -> Reason | None:
    """Return why a state besides the main one can't be used. `made` are digests of its weights as the plain run made them."""
    call = init.call
    if report.cause is not None:
        return report.cause
    if not report.init:
        return Cause.NOT_REPRODUCIBLE.of(init=call.name, what="the arguments that it is called with")
    if (name := _first_differing(init, made)) is not None:
        return Cause.NOT_REPRODUCIBLE.of(init=call.name, what=f"the content of {name}")
    if report.skeleton != call.skeleton:
        return Cause.NOT_REPRODUCIBLE.of(init=call.name, what=UNKNOWN_PART)
    return _unseeded(init)


def _first_differing(init: EventInit, made: dict[str, str]) -> str | None:
    """Return the name of the first weight that came out otherwise than in the trace."""
    return next((w.names[0] for w in init.weights if made.get(w.names[0], w.digest) != w.digest), None)


def _unseeded(init: EventInit) -> Reason | None:
    """Return the cause where a weight was drawn without a seed: such a one is never static, even where two runs drew the same."""
    drawn = next((weight.names[0] for weight in init.weights if weight.identity.startswith(DRAWN)), None)
    return Cause.UNSEEDED.of(weight=drawn, init=init.call.name) if drawn is not None else None


def written_file(init: str, opened: Sequence[FileOpened]) -> Reason | None:
    """Return why no restored state will do where the handler reads a file that init wrote."""
    file = next((file for file in opened if file.phase == "handler" and file.written is not None), None)
    return Cause.WRITTEN_FILE_READ.of(init=init, file=file.path) if file is not None else None


def not_reproducible(strategy: Strategy, report: SnapshotReport) -> Reason | None:
    """Return the first weight of an event that came out otherwise in the plain run than in the trace."""
    if not strategy.inits:
        return None
    recorded = {init.call.event: init for init in strategy.inits}
    first = strategy.inits[0]
    for event, state in sorted(report.states.items()):
        # an event that agreed with the first in all that init saw of it was not recorded, and has to have the first's state
        init = recorded.get(event, first if len(recorded) == 1 else None)
        if init is None:
            continue
        for weight in init.weights:
            name = weight.names[0]
            if state.get(name, weight.digest) != weight.digest:
                if not weight.identity.startswith(DOUBT) and not UNWRITTEN.isdisjoint(weight.operators):
                    return Cause.NEVER_WRITTEN.of(weight=name)  # all else that made it gives the same each time
                if event != init.call.event:
                    mark = "is marked static=True, and " if init.call.static else ""
                    return Cause.STATE_DIFFERS_BY_EVENT.of(init=init.call.name, mark=mark, event=event)
                return Cause.NOT_REPRODUCIBLE.of(init=init.call.name, what=f"the content of {name}")
    return None
