"""The proof of a bundle: fresh processes answer events from it, and what they give is compared with what the plain function gives."""

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.bundle.manifest import Manifest, prefix_in
from tidalctl.artifacts.bundle.start_times import StartTimes
from tidalctl.artifacts.cause import Cause
from tidalctl.artifacts.errors import FunctionError
from tidalctl.artifacts.records import Record, digest_json
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import Event, InitCall, Invocation
from tidalctl.compiler.attempt import Attempt, Workplace
from tidalctl.compiler.away import Away
from tidalctl.compiler.conditions import UNKNOWN_PART
from tidalctl.compiler.snapshot.processes import first_outline_difference, plain_run, run_from_bundle
from tidalctl.compiler.snapshot.records import SnapshotReport
from tidalctl.compiler.states import first_event_of_main_state, state_requests
from tidalctl.function.output_comparison import first_difference, same_output

Say = Callable[[str], None]

DIFFERS = "the answer differs"
SHOWN = 80  # characters of an event that a message shows
PLANNED = 64 * 2**20  # bytes of weights from which on it is worth two more starts to plan their loading well


class Expected(Record, frozen=True):
    """What the plain function makes of an event: its answer as JSON, and the digests of its state's weights by name."""

    name: str  # of the event, in messages
    event: Event
    output: str
    state: dict[str, str]
    traced: int | None = None  # the number of a traced event, which the bundle must answer by its strategy


def run_plainly(place: Workplace, events: Sequence[str]) -> list[Expected]:
    """Run the plain function on each event of `--check-event`, in a process of its own, with the first traced one's context.

    Raises FunctionError where it fails.
    """
    found = []
    for index, text in enumerate(events):
        name = f"--check-event {text[:SHOWN]}"
        event = msgspec.structs.replace(place.trace.header.events[0], digest=digest_json(json.loads(text)), text=text)
        try:
            found.append(_expected(f"check event {index}", event, _plain_run(place, [event])))
        except FunctionError as error:
            raise FunctionError(f"{name}: {error.message}", "name events that the function answers") from None
    return found


def _plain_run(place: Workplace, events: Sequence[Event], outline: str = "") -> SnapshotReport:
    place.runs.plain += len(events)
    return plain_run(place.trace.header, events, place.work, state_requests(place.trace), outline)


def _expected(name: str, event: Event, report: SnapshotReport, index: int = 0, traced: int | None = None) -> Expected:
    output = report.alone.get(index, report.outputs[index])
    state = report.states_alone.get(index, report.states.get(index, {}))
    return Expected(name=name, event=event, output=output, state=state, traced=traced)


def compare_plain_runs(place: Workplace, call: InitCall | None, made: Attempt, say: Say) -> tuple[bool, Attempt]:
    """Return whether two plain runs answer alike, and the attempt, with a cause where they do not build alike.

    The traced run is the first; only where it differs is a third one needed, since tracing may have been the reason. Under `--once`
    there is no third one, and what differs counts as different each time.
    """
    trace, report = place.trace, made.report
    traced = [invocation.output for invocation in trace.of(Invocation)]
    alike = [digest_json(json.loads(text)) for text in report.outputs] == traced
    same_state = call is None or call.skeleton == report.skeleton
    if alike and (made.cause or same_state):
        return True, made
    what = f"its {'state' if alike else 'answer'} is not the traced one"
    if trace.header.once:
        say(f"{what}; under --once it is not run again to see whether it ever is the same: it counts as another each time")
        if call is not None and not same_state and made.kind != "replay" and made.cause is None:
            made = msgspec.structs.replace(made, cause=Cause.NOT_REPRODUCIBLE.of(init=call.name, what=UNKNOWN_PART))
        return alike, made
    say(f"{what}; running it again to see whether it ever is the same")
    again = _plain_run(place, trace.header.events, "one.json")
    if call is not None and again.skeleton != report.skeleton and made.kind != "replay" and made.cause is None:
        differs = Cause.NOT_REPRODUCIBLE.of(init=call.name, what=_what_differs(place))
        made = msgspec.structs.replace(made, cause=differs)
    pairs = zip(report.outputs, again.outputs, strict=True)
    return all(same_output(json.loads(one), json.loads(other)) for one, other in pairs), made


def _what_differs(place: Workplace) -> str:
    """Return in what the states of two plain runs differ besides tensors: a path, where another run shows one."""
    event = first_event_of_main_state(place.trace)
    _plain_run(place, place.trace.header.events[event : event + 1], "other.json")
    path = first_outline_difference(place.work, "one.json", "other.json")
    return path or UNKNOWN_PART


def prove(
    place: Workplace, away: Away, manifest: Manifest, report: SnapshotReport, checks: Sequence[Expected], say: Say
) -> tuple[str | None, StartTimes | None]:
    """Return what the bundle makes otherwise than the plain function, or None, and how the start went that made the main state first.

    It answers away from home, where the project is out of reach.
    """
    say(f"answering the traced events{' and the check events' if checks else ''} from the bundle in a fresh process")
    events = enumerate(place.trace.header.events)
    traced = [_expected(f"event {index}", event, report, index, traced=index) for index, event in events]
    first, times = first_event_of_main_state(place.trace), None
    for expected in (*traced, *checks):
        place.runs.bundle += 1
        answer = run_from_bundle(Path(away.bundle), away.header(place.trace.header), expected.event, command=away.command)
        if "output" in answer:
            answer["output"] = away.at_home(answer["output"])
        if expected.traced == first:
            times = _start_times(place.trace, answer)
        if difference := _difference(place, manifest, expected, answer, say):
            return f"{expected.name}: {difference}", None
        if answer["fallback"] and manifest.strategy != "eager":
            say(f"{expected.name} is answered by init: {answer['fallback']}")
    return None, times


def _difference(place: Workplace, manifest: Manifest, expected: Expected, answer: dict[str, Any], say: Say) -> str | None:
    """Return what an answer from the bundle has otherwise than the plain function's.

    A check event may be answered another way than the traced ones, but not otherwise.
    """
    if "failed" in answer:
        return str(answer["failed"]).removeprefix("error: ")
    index = expected.traced
    must = index == first_event_of_main_state(place.trace) or (index is not None and manifest.strategy == "script")
    if must and manifest.strategy != "eager" and 0 not in answer["restored"]:
        return str(answer["fallback"])
    if not manifest.reproducible:
        return None
    found = _unlike(manifest, answer, expected)
    if found and index:  # the plain run answered all events in one process, and the function may remember
        found = _unlike(manifest, answer, _alone(place, expected))
    if found == DIFFERS:  # how is said, and not kept: a bundle holds no answers
        say(f"it answers {expected.name} otherwise: {first_difference(answer['output'], json.loads(expected.output))}")
    return found


def _alone(place: Workplace, expected: Expected) -> Expected:
    """Return what the plain function makes of an event in a process that answers no other."""
    report = _plain_run(place, [expected.event])
    return _expected(expected.name, expected.event, report, traced=expected.traced)


def _unlike(manifest: Manifest, answer: dict[str, Any], expected: Expected) -> str | None:
    if not same_output(answer["output"], json.loads(expected.output)):
        return DIFFERS
    made, state = answer["state"], expected.state
    if manifest.strategy == "eager" or made is None:
        return None
    asked = {prefix_in(name) for name in made}
    state = {name: digest for name, digest in state.items() if prefix_in(name) in asked}
    if made == state:
        return None
    return f"{min(name for name in {*state, *made} if state.get(name) != made.get(name))} is not what init makes"


def steadier_times(place: Workplace, manifest: Manifest, first: StartTimes | None, say: Say) -> StartTimes | None:
    """Return medians of three starts, where there are weights enough to plan for: a machine's times vary by a tenth and more.

    Under `--once` the first one has to do.
    """
    if first is None or place.trace.header.once or sum(weight.nbytes for weight in manifest.weights) < PLANNED:
        return first
    say("starting it twice more, for the times that plan goes by")
    event = place.trace.header.events[first_event_of_main_state(place.trace)]
    place.runs.bundle += 2
    answers = [run_from_bundle(place.partial, place.trace.header, event, state=False) for _ in range(2)]
    again = [_start_times(place.trace, answer) for answer in answers]
    starts = [first, *(times for times in again if times is not None)]
    return StartTimes(
        **{name: statistics.median(getattr(start, name) for start in starts) for name in StartTimes.__struct_fields__}
    )


def _start_times(trace: Trace, answer: dict[str, Any]) -> StartTimes | None:
    """Return the times of the start that a proof's report tells of, without what the proof itself took.

    None where no state was restored.
    """
    traced = trace.of(Invocation)[first_event_of_main_state(trace)]
    if answer.get("ready_s") is None or answer.get("opened_s") is None:
        return None
    own = answer["phases"].get("state digests", 0.0) + answer["stalled_s"]
    return StartTimes(
        begin_s=answer["opened_s"],
        ready_s=answer["ready_s"],
        compute_s=max(answer["ttft_s"] - answer["ready_s"] - own, 0.0),
        traced_compute_s=traced.first_piece_s or traced.first_call_s,
    )
