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
from tidalctl.compiler.snapshot.records import SnapshotReport
from tidalctl.compiler.strategy import Strategy
from tidalctl.compiler.variables import environ_reads
from tidalctl.function.command_line import argv_digest
from tidalctl.function.event_probe import digest_value


def guard_of(kind: str, strategy: Strategy, report: SnapshotReport, trace: Trace) -> Guard:
    """What a start must agree in: for `snapshot` also what init read of the event, where it read any. Of no init, in nothing."""
    if not strategy.inits:
        return Guard(static=True)
    call, event = strategy.inits[0].call, strategy.inits[0].event
    fields = dict(call.event_reads) if kind == "snapshot" else {}
    whole = digest_value(event) if call.event_whole and kind == "snapshot" else ""
    reads = environ_reads(trace)
    return Guard(
        static=not (fields or whole),
        event_reads=fields,
        event_whole=whole,
        arguments="" if kind == "replay" else call.arguments,
        environ=reads.variables,
        environ_at_init=reads.at_init,
        argv=argv_digest(trace.header.argv, [trace.header.root]),
        settings=report.settings,
        moved=report.moved,
        directory=report.directory,
        assigned=report.assigned,
        generators=report.generators,
        drawn=report.drawn,
        later_calls=report.later_calls,
        computed=computed_part(kind, strategy, report),
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
    drawn = next((weight.names[0] for weight in strategy.inits[0].weights if weight.identity.startswith(DRAWN)), None)
    # such a weight is never static, even where two runs drew the same
    return not_reproducible(strategy, report) or (
        Cause.UNSEEDED.of(weight=drawn, init=call.name) if drawn is not None else None
    )


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
