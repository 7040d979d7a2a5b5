"""One call of init, recorded: what it read of the event, what it made, and how each of its weights came to be."""

import inspect
import os
import resource
import sys
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

from tidalctl.artifacts.state.skeleton import skeleton_digest
from tidalctl.artifacts.state.storages import digest_of, storage_names
from tidalctl.artifacts.trace import records as t
from tidalctl.function.event_probe import EventProbe, Written, agrees, arguments_digest
from tidalctl.function.init_mark import Init
from tidalctl.function.process_settings import GENERATORS, ambient_digests, begun, changed, read_ambient
from tidalctl.lineage.computed import Computed
from tidalctl.lineage.mode import recording
from tidalctl.lineage.tape import Tape
from tidalctl.tracer.process.own_frames import own_frames


class RecordedInit:
    """A recorded call and the state that it gave. `addresses` maps its storages to the numbers of their weights."""

    def __init__(self, call: t.InitCall, state: Any, whole: str, tape: Tape, computed: Computed) -> None:
        self.call = call
        self.state = state
        self.tape = tape
        self.addresses: dict[int, int] = {}
        self._whole = whole
        self._computed = computed

    def answers(self, mark: Init, event: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
        """Whether another call would give the same state, in everything that this one saw, and do nothing else."""
        if self.call.name != mark.name or not self.call.arguments or self.call.writes:
            return False
        if arguments_digest(event, arguments, keywords, [self.tape.root]) != self.call.arguments:
            return False
        if self.call.event_whole and not self._whole:
            return False
        return self.call.static or agrees(event, self.call.event_reads, self._whole if self.call.event_whole else "")

    def weights(self, first: int) -> Iterator[tuple[t.Weight, int]]:
        """The state's weights, numbered from `first`, each with its storage's address."""
        for index, (address, (names, tensor, storage)) in enumerate(storage_names(self.state).items()):
            history = self.tape.history(storage)
            number = self.tape.number(tensor)
            history = history or self.tape.history(storage)
            assert history is not None
            weight = t.Weight(
                index=first + index,
                event=self.call.event,
                names=tuple(names),
                dtype=str(tensor.dtype).removeprefix("torch."),
                shape=tuple(tensor.shape),
                nbytes=storage.nbytes(),
                device=str(storage.device),
                digest=digest_of(storage),
                sources=history.sources,
                operators=history.operators,
                identity=history.identity,
                value=number,
                computed=self._computed.how(history.identity),
                call=self.tape.call,
            )
            yield weight, address


def record_init(
    mark: Init,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    event: dict[str, Any],
    tape: Tape,
    generators: Collection[str] = (),
) -> RecordedInit:
    """Run init under the tape, with a probe in the event's place.

    `generators` names the random generators that were there before the first event (none: all that are here). One that an init
    brought since, by an import, would be brought by this one in a process of its own.
    """
    code = getattr(inspect.unwrap(mark.function), "__code__", None)
    probe, written = EventProbe(event, code), Written(event, arguments, keywords, [tape.root])
    before = {
        name: value for name, value in read_ambient().items() if name not in GENERATORS or name in generators or not generators
    }
    called_at, began = caller(tape.root), time.perf_counter()
    with recording(tape) as threads:
        state = _call_with_probe(mark.function, arguments, keywords, event, probe, written)
    if sys.getrefcount(probe) > 2:  # kept by the state or by somebody else, who may read more of it later
        probe.whole = True
    duration = time.perf_counter() - began
    after, computed = read_ambient(), Computed(tape.records)
    call = t.InitCall(
        name=mark.name,
        static=mark.static,
        event=tape.event,
        arguments=written.arguments or "",
        event_reads=dict(probe.reads),
        event_whole=probe.whole,
        duration_s=duration,
        operators=tape.operators,
        threads=len(threads),
        peak_rss=peak_rss(),
        ambient=ambient_digests(changed(before, after)),
        generators=ambient_digests({name: value for name, value in begun(before, after).items() if name in GENERATORS}),
        skeleton=skeleton_digest(state),
        writes=written.what(),
        computed_read=computed.host_read,
        first_event_line=probe.first_line,
        called_at=called_at,
    )
    return RecordedInit(call, state, written.whole or "", tape, computed)


def _call_with_probe(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    event: dict[str, Any],
    probe: EventProbe,
    written: Written,
) -> Any:
    """Call init with the probe in the event's place, and with the event where something in it can't take a probe."""
    try:
        return function(
            *(probe if value is event else value for value in arguments),
            **{key: probe if value is event else value for key, value in keywords.items()},
        )
    except Exception:  # noqa: BLE001 - if the probe was not the reason, the same comes again
        probe.whole = True
        written.put_back()
        return function(*arguments, **keywords)


def caller(root: str) -> str:
    """Return the innermost file of the project that runs, and its line: who calls init. Empty where none does in this thread."""
    frame = next(own_frames(sys._getframe(1), root), None) if root else None
    return "" if frame is None else f"{os.path.relpath(frame.f_code.co_filename, root)}:{frame.f_lineno}"


def peak_rss() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
