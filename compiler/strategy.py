"""How the state will be made for the events to come: decided from the traces alone, before anything is run again."""

import json
from collections.abc import Sequence

import msgspec

from tidalctl.artifacts.bundle.manifest import Fallback
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import Environment, FileOpened, InitCall, Weight
from tidalctl.artifacts.trace.tape import TapeRead, TapeStep
from tidalctl.compiler.dynamic.derivation import Planned, plan_program, static_weights
from tidalctl.compiler.dynamic.expressions import bounded
from tidalctl.compiler.dynamic.program import Program
from tidalctl.compiler.dynamic.recorded_init import EventInit
from tidalctl.compiler.dynamic.slicing import NotSliced
from tidalctl.compiler.states import numbered_calls


class Strategy(Record, frozen=True):
    """How the main state is made: `kind` is snapshot, script, replay, or eager where no init was called.

    `inits` are the calls that gave the main state, `further` the first ones that gave the others, by number. `request_files` are files
    of a request, which no snapshot may hold the content of.
    """

    kind: str
    inits: tuple[EventInit, ...]
    further: dict[int, EventInit] = {}
    planned: Planned | None = None
    source: str = ""  # of the script
    static: tuple[str, ...] = ()
    request_files: tuple[str, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    notes: tuple[str, ...] = ()


def recorded_inits(trace: Trace) -> tuple[EventInit, ...]:
    """The calls that gave the main state, but for those whose init saw the same as in an earlier one."""
    found = (init for init, (number, _) in zip(all_inits(trace), numbered_calls(trace), strict=True) if number == 0)
    # what saw the same of its event, in two traces say, tells nothing new
    return tuple({_saw(init): init for init in reversed(list(found))}.values())[::-1]


def all_inits(trace: Trace) -> tuple[EventInit, ...]:
    """The calls of inits that were recorded."""
    opened = tuple(dict.fromkeys(f.given for f in trace.of(FileOpened) if f.phase == "init" and f.given and not f.mapped))
    weights: dict[int, list[Weight]] = {}
    records: dict[int, list[TapeRead | TapeStep]] = {}
    for record in trace.records:
        if isinstance(record, Weight):
            weights.setdefault(record.call, []).append(record)
        elif isinstance(record, TapeRead | TapeStep):
            records.setdefault(record.call, []).append(record)
    return tuple(
        EventInit(
            event=json.loads(trace.header.events[call.event].text),
            call=call,
            weights=tuple(weights.get(place, ())),
            records=tuple(records.get(place, ())),
            opened=opened,
        )
        for place, call in enumerate(trace.of(InitCall))
    )


def _saw(init: EventInit) -> str:
    call = init.call
    whole = init.event if call.event_whole else None
    return repr((call.name, call.arguments, sorted(call.event_reads.items()), whole))


def decide(trace: Trace) -> Strategy:
    """Decide how the states are made. The weights' names are as compiler.states gives them."""
    return msgspec.structs.replace(_of_main_state(trace), further=_further_inits(trace))


def _further_inits(trace: Trace) -> dict[int, EventInit]:
    found: dict[int, EventInit] = {}
    for (number, _), init in zip(numbered_calls(trace), all_inits(trace), strict=True):
        if number:
            found.setdefault(number, init)
    return found


def _of_main_state(trace: Trace) -> Strategy:
    inits = recorded_inits(trace)
    if not inits:
        return Strategy(kind="eager", inits=())
    calls = [init.call for init in inits]
    looked = any(call.event_reads or call.event_whole for call in calls)
    files = request_files(inits)
    static = tuple(sorted(static_weights(inits, files)))
    name = calls[0].name
    if reason := writes_of(inits):
        fallback = Fallback.of("dynamic init", "replay", reason)
        return Strategy(kind="replay", inits=inits, static=static, request_files=files, fallbacks=(fallback,))
    if not looked:
        return Strategy(kind="snapshot", inits=inits, static=static)
    notes = [f"{name} is marked static=True, and it reads {read_of_event(calls)}"] if any(call.static for call in calls) else []
    if len(inits) == 1:
        notes.append(
            f"{name} read {read_of_event(calls)}: one traced event can't tell what depends on that; give --event twice, "
            "or a second trace"
        )
        return Strategy(kind="replay", inits=inits, static=static, request_files=files, notes=tuple(notes))
    try:
        planned = plan_program(inits, trace.header.cwd, trace.header.vary, files)
        source = _source(planned.program, name, trace)
    except NotSliced as refused:
        fallback = Fallback.of("dynamic init", "replay", refused.reason)
        return Strategy(
            kind="replay", inits=inits, static=static, request_files=files, fallbacks=(fallback,), notes=tuple(notes)
        )
    return Strategy(
        kind="script", inits=inits, planned=planned, source=source, static=static, request_files=files, notes=tuple(notes)
    )


def _source(program: Program, init: str, trace: Trace) -> str:
    """Return the text of dynamic_init.py. Raise NotSliced where the program can't be written down."""
    from tidalctl.compiler.script.writer import program_source  # which looks operators up in torch

    function = trace.header.function
    environment = trace.one(Environment)
    versions = environment.fingerprint.distributions if environment is not None else {}
    requirements = [f"{name}=={version}" for name, version in versions.items() if name in ("torch", "safetensors")]
    try:
        return program_source(f"{function.module}:{function.handler}", init, program, requirements)
    except ValueError as error:
        raise NotSliced(Cause.NOT_IN_A_SCRIPT, what=error) from error


def writes_of(inits: Sequence[EventInit]) -> Reason | None:
    """Return why no state may stand for what init does, if it writes to its arguments, which the handler finds changed."""
    writing = next((init.call for init in inits if init.call.writes), None)
    return Cause.ARGUMENT_WRITTEN.of(init=writing.name, what=writing.writes) if writing is not None else None


def read_of_event(calls: Sequence[InitCall]) -> str:
    """Return what calls of init read of their events, in words."""
    if any(call.event_whole for call in calls):
        return "all of the event"
    return ", ".join(f'event["{key}"]' for key in sorted({key for call in calls for key in call.event_reads}))


def request_files(inits: Sequence[EventInit]) -> tuple[str, ...]:
    """Files opened in init whose path a text of the event stands in."""
    keys = {key for init in inits for key in init.call.event_reads}
    whole = any(init.call.event_whole for init in inits)
    texts = {
        value
        for init in inits
        for key, value in init.event.items()
        if isinstance(value, str) and value and (whole or key in keys)
    }
    return tuple(given for given in inits[0].opened if any(bounded(given, value) for value in texts))
