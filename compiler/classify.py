"""Whether what a second, plain run gave may stand for the init of other starts, and what those must agree in.

A weight is static when its lineage and content are the same for every event. Where init read nothing of the event, that needs no
second event: it took the same path as for any other.
"""

from tidalctl.artifacts.manifest import Guard
from tidalctl.artifacts.tape import DRAWN
from tidalctl.artifacts.trace import EnvironReads, InitCall, Trace
from tidalctl.compiler.snapshot import SnapshotReport
from tidalctl.compiler.strategy import Strategy, writes_of
from tidalctl.eventprobe import digest_value


def guard_of(kind: str, strategy: Strategy, report: SnapshotReport, trace: Trace) -> Guard:
    """What a start must agree in: for `snapshot` also what init read of the event, where it read any."""
    call, event = strategy.inits[0].call, strategy.inits[0].event
    reads = dict(call.event_reads) if kind == "snapshot" else {}
    whole = digest_value(event) if call.event_whole and kind == "snapshot" else ""
    return Guard(
        static=not (reads or whole),
        event_reads=reads,
        event_whole=whole,
        arguments="" if kind == "replay" else call.arguments,
        environ=(trace.one(EnvironReads) or EnvironReads(variables={})).variables,
        argv=trace.header.argv,
        settings=report.settings,
        moved=report.moved,
        directory=report.directory,
        assigned=report.assigned,
        generators=report.generators,
        drawn=report.drawn,
        later_calls=report.later_calls,
    )


def of_the_event(guard: Guard) -> Guard:
    """What of a guard says for which events a state is: a start that takes none asks for nothing of the process."""
    return Guard(static=guard.static, event_reads=guard.event_reads, event_whole=guard.event_whole, arguments=guard.arguments)


def refusal(kind: str, strategy: Strategy, report: SnapshotReport) -> str:
    """Why the snapshot that was taken can't be used; empty where it can."""
    call = strategy.inits[0].call
    if report.cause:
        return report.cause
    if kind != "replay" and (cause := writes_of(strategy.inits)):
        return cause
    if kind != "replay" and not call.arguments:
        return f"{call.name} was called with an argument that is not JSON, so that no later call can be known to be alike"
    if kind == "script" and report.later_calls != "fresh":
        return f"{call.name} keeps its state, and may give it again for another event"
    if kind == "script" and report.globals_differ:
        return f"{call.name} sets {report.globals_differ} otherwise for another event"
    return not_reproducible(strategy, report) or _drawn(kind, call, strategy, report)


def not_reproducible(strategy: Strategy, report: SnapshotReport) -> str:
    """Which weight of which event came out otherwise in the plain run than in the trace; empty where all came out alike."""
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
                if event != init.call.event:
                    mark = "is marked static=True, and " if init.call.static else ""
                    return f"{init.call.name} {mark}gave another state for event {event}, though it read nothing of it that differs"
                return f"{name}: init gave another content in a second run, so that it is not static (random numbers without a seed?)"
    return ""


def _drawn(kind: str, call: InitCall, strategy: Strategy, report: SnapshotReport) -> str:
    """Weights that hold random numbers drawn without a seed are never static, even where two runs drew the same."""
    stored = set(report.digests.values())
    for weight in strategy.inits[0].weights:
        if weight.identity.startswith(DRAWN) and (kind != "replay" or weight.digest in stored):
            return f"{weight.names[0]}: {call.name} draws it at random without a seed, so that it is not reproducible"
    return ""
