"""The states that a function's calls of inits give, numbered: each init with each of its arguments gives one.

State 0, the bundle's main one, is that with the most bytes of weights; the others follow in the order of their first calls. Calls of an
init that looks at the event are calls for one state, which is another one for each event.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tidalctl.artifacts.bundle.manifest import prefix_in, state_prefix
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import AnyRecord, FirstUse, InitCall, Weight, WeightWritten
from tidalctl.artifacts.trace.tape import TapeRead, TapeStep
from tidalctl.compiler.snapshot.records import StateRequest


def state_numbers(calls: Sequence[InitCall], weights: Sequence[Weight]) -> list[int]:
    """Return the number of the state that each call gave."""
    looking = _looking(calls)
    keys = [(call.name, "" if call.name in looking else call.arguments) for call in calls]
    sizes = [0] * len(calls)
    for weight in weights:
        sizes[weight.call] += weight.nbytes
    largest: dict[tuple[str, str], int] = {}
    for key, size in zip(keys, sizes, strict=True):
        largest[key] = max(size, largest.get(key, 0))
    order = list(largest)
    if order:
        main = max(order, key=largest.__getitem__)
        order = [main, *(key for key in order if key != main)]
    return [order.index(key) for key in keys]


def _looking(calls: Iterable[InitCall]) -> set[str]:
    """Return the inits that look at the event, in any of their calls."""
    return {call.name for call in calls if call.event_reads or call.event_whole}


def numbered_calls(trace: Trace) -> list[tuple[int, InitCall]]:
    """Return the calls in order, each with the number of the state that it gave."""
    calls = trace.of(InitCall)
    return list(zip(state_numbers(calls, trace.of(Weight)), calls, strict=True))


def first_event_of_main_state(trace: Trace) -> int:
    """Return the number of the first event that asked for the main state; 0 where there is no state."""
    return next((call.event for number, call in numbered_calls(trace) if number == 0), 0)


def with_state_names(trace: Trace) -> Trace:
    """Return the trace with the weights of all states but the main one under names that begin with their state's prefix."""
    calls, weights = trace.of(InitCall), trace.of(Weight)
    numbers = state_numbers(calls, weights)
    if not any(numbers):
        return trace
    prefixes = [state_prefix(number, call.name) for number, call in zip(numbers, calls, strict=True)]

    def named(weight: Weight) -> Weight:
        return msgspec.structs.replace(weight, names=tuple(prefixes[weight.call] + name for name in weight.names))

    records = [named(record) if isinstance(record, Weight) else record for record in trace.records]
    return Trace(trace.header, records, trace.complete)


def without_main_state(trace: Trace) -> Trace:
    """Return the trace as if the calls that gave the main state had not been recorded, with the weights' names as they were traced."""
    calls, weights = trace.of(InitCall), trace.of(Weight)
    kept = [place for place, number in enumerate(state_numbers(calls, weights)) if number]
    places = {place: index for index, place in enumerate(kept)}
    dropped = {weight.index for weight in weights if weight.call not in places}
    records: list[AnyRecord] = []
    count = 0
    for record in trace.records:
        if isinstance(record, InitCall):
            count += 1
            if count - 1 in places:
                records.append(record)
        elif isinstance(record, Weight | TapeRead | TapeStep):
            if record.call in places:
                names = tuple(map(_without_prefix, record.names)) if isinstance(record, Weight) else ()
                changes: dict[str, Any] = {"names": names} if names else {}
                records.append(msgspec.structs.replace(record, call=places[record.call], **changes))
        elif not (isinstance(record, FirstUse | WeightWritten) and record.weight in dropped):
            records.append(record)
    return Trace(trace.header, records, trace.complete)


def _without_prefix(name: str) -> str:
    return name.removeprefix(prefix_in(name))


def new_states(trace: Trace) -> dict[int, list[int]]:
    """Return by event the states that it asked for and none before it."""
    first: dict[int, int] = {}
    for number, call in numbered_calls(trace):
        first.setdefault(number, call.event)
    found: dict[int, list[int]] = {}
    for number, event in first.items():
        found.setdefault(event, []).append(number)
    return found


def state_requests(trace: Trace) -> tuple[StateRequest, ...]:
    """Return the states that the trace saw made, in the order of their first calls, for a process that runs the function."""
    calls = numbered_calls(trace)
    looking = _looking(call for _, call in calls)
    found: dict[int, StateRequest] = {}
    for number, call in calls:
        arguments = "" if call.name in looking else call.arguments
        request = StateRequest(number, call.name, arguments, call.ambient, call.generators)
        found.setdefault(number, request)
    return tuple(found.values())
