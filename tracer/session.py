"""The traced process: imports the function, runs init once and the handler twice for each event, and writes records as it goes."""

import json
import resource
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from tidalctl.ambient import GENERATORS, ambient_digests, changed, read_ambient
from tidalctl.artifacts import trace as t
from tidalctl.artifacts.fingerprint import read_fingerprint
from tidalctl.artifacts.records import digest_json
from tidalctl.artifacts.skeleton import skeleton_digest
from tidalctl.artifacts.storages import digest_of, storage_names, storage_of, tensors_of
from tidalctl.context import Init
from tidalctl.eventprobe import EventProbe, agrees, arguments_digest, digest_value
from tidalctl.function import Handler, json_text, pieces
from tidalctl.tracer.access import AccessMode, AccessRecord, ModuleStack
from tidalctl.tracer.clock import TraceClock
from tidalctl.tracer.kernels import kernel_signatures
from tidalctl.tracer.lineage import LineageMode, LineageTable
from tidalctl.tracer.sources import LoaderWatch
from tidalctl.tracer.threads import InEveryThread


class Session:
    """One traced process. `state` is what init gave; the weights are its storages, numbered as they were found."""

    def __init__(self, writer: t.TraceWriter, clock: TraceClock, note_file: Callable[[str], None]) -> None:
        self.writer = writer
        self.clock = clock
        self.table = LineageTable()
        self.watch = LoaderWatch(self.table, note_file)
        self.executed: set[str] = set()
        self.state: Any = None
        self.call: t.InitCall | None = None
        self._event: dict[str, Any] = {}
        self._event_index = 0
        self._access = AccessRecord()
        self._weights: dict[int, int] = {}
        self._module_names: dict[int, str] = {}
        self._stack = ModuleStack(self._module_names)

    def after_import(self, module: ModuleType) -> None:
        self.watch.imported(module)

    # -- init

    def answer_init(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The first call runs under lineage; a later one gets the same state where it would make the same."""
        event = self._event  # another dict, or a copy, is an argument like any other
        digest = arguments_digest(event, arguments, keywords)
        known = self.call
        if known is not None and known.name == mark.name and known.arguments == (digest or "") and digest is not None:
            whole = digest_value(self._first_event) if known.event_whole else ""
            if known.static or agrees(event, known.event_reads, whole):
                return self.state
        began = time.perf_counter()
        self._watch_code(False)  # init's code is not the handler's, and to be told of each of its calls would double its time
        try:
            with self.clock.entering("init"), _disable_current_modes():
                if known is not None:
                    return mark.function(*arguments, **keywords)
                return self._first_init(mark, arguments, keywords, event, digest)
        finally:
            self._watch_code(self.clock.phase == "handler")
            self._access.paused_s += time.perf_counter() - began

    def _first_init(
        self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any], event: dict[str, Any], digest: str | None
    ) -> Any:
        self._first_event = event
        probe = EventProbe(event)
        before = read_ambient()
        began = time.perf_counter()
        everywhere = InEveryThread(lambda: LineageMode(self.table))
        with everywhere, LineageMode(self.table):
            self.state = _call_with_probe(mark.function, arguments, keywords, event, probe)
        if sys.getrefcount(probe) > 2:  # kept by the state or by somebody else, who may read more of it later
            probe.whole = True
        duration = time.perf_counter() - began
        self.call = t.InitCall(
            name=mark.name,
            static=mark.static,
            event=self._event_index,
            arguments=digest or "",
            event_reads=probe.reads,
            event_whole=probe.whole,
            duration_s=duration,
            operators=self.table.operators,
            threads=everywhere.count,
            peak_rss=_peak_rss(),
            ambient=ambient_digests(changed(before, read_ambient())),
            generators=ambient_digests({name: before[name] for name in GENERATORS if name in before}),
            skeleton=skeleton_digest(self.state),
        )
        self.writer.write(self.call)
        with self.clock.charging("digests"):
            self._write_weights()
        return self.state

    def _write_weights(self) -> None:
        for path, module in _modules_of(self.state):
            self._module_names.setdefault(id(module), path)
        for index, (address, (names, tensor, storage)) in enumerate(storage_names(self.state).items()):
            self._weights[address] = index
            origin = self.table.origin(storage)
            self.writer.write(
                t.Weight(
                    index=index,
                    names=tuple(names),
                    dtype=str(tensor.dtype).removeprefix("torch."),
                    shape=tuple(tensor.shape),
                    nbytes=storage.nbytes(),
                    device=str(storage.device),
                    digest=digest_of(storage),
                    sources=origin.sources,
                    operators=origin.operators,
                )
            )
        self._access.weights = self._weights

    # -- the handler

    def invoke(self, handler: Handler, event: dict[str, Any], index: int, tensorboard: str) -> None:
        """Run the handler twice on one event, alike instrumented, and write what the first call did."""
        self._event, self._event_index = event, index
        first = self._timed_call(handler, event, tensorboard)
        record, profile = first.record, first.profile
        with self.clock.charging("profiler"):
            signatures = kernel_signatures(record, profile)
        second = self._timed_call(handler, event, "")
        for use in sorted(record.first_uses.values(), key=lambda use: use.ordinal):
            self.writer.write(
                t.FirstUse(
                    weight=use.weight,
                    event=index,
                    module=use.module,
                    operator=use.operator,
                    ordinal=use.ordinal,
                    time_s=use.time_s,
                )
            )
        for weight, operator in sorted(record.written.items()):
            self.writer.write(t.WeightWritten(weight=weight, event=index, operator=operator))
        for signature in signatures:
            self.writer.write(t.Kernel(event=index, signature=signature))
        self.writer.write(
            t.Invocation(
                event=index,
                pieces=first.pieces,
                output=first.output,
                first_call_s=first.seconds,
                first_piece_s=first.first_piece_s,
                second_call_s=second.seconds,
                operators=record.operators,
                peak_rss=_peak_rss(),
                repeatable=first.output == second.output,
            )
        )

    def _timed_call(self, handler: Handler, event: dict[str, Any], tensorboard: str) -> "_Call":
        record = self._access = AccessRecord()
        record.weights = self._weights
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        keep = torch.profiler.tensorboard_trace_handler(tensorboard, use_gzip=True) if tensorboard else None
        with self.clock.charging("profiler"):
            profile = torch.profiler.profile(activities=activities, on_trace_ready=keep)
            profile.start()
        output: list[Any] = []
        first_piece = 0.0
        modes = InEveryThread(lambda: AccessMode(record, self._stack))
        self._watch_code(True)
        try:
            with self.clock.entering("handler"), self._stack, modes, AccessMode(record, self._stack):
                record.began = time.perf_counter()
                # as the interpreter would: the mode is on while the generator runs, not only while it is made
                result = handler(event, None)
                streams = hasattr(result, "__next__")
                for piece in pieces(result):
                    first_piece = first_piece or record.elapsed_s()
                    with torch.profiler.record_function("tidalctl: first piece" if not output else "tidalctl: piece"):
                        output.append(piece)
                seconds = record.elapsed_s()
        finally:
            self._watch_code(False)
            with self.clock.charging("profiler"):
                profile.stop()
            self.clock.cost["hooks"] += record.hooks_s
        value = json.loads(json_text(output if streams else output[0]))
        return _Call(record, profile, seconds, first_piece, len(output) if streams else 0, digest_json(value))

    def _watch_code(self, on: bool) -> None:
        hook = self._note_code if on else None
        threading.setprofile(hook)  # type: ignore[arg-type]
        sys.setprofile(hook)

    def _note_code(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and self.clock.phase == "handler":
            self.executed.add(frame.f_code.co_filename)


def _call_with_probe(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any], event: dict[str, Any], probe: EventProbe
) -> Any:
    """Call init with the probe in the event's place, and with the event where something in it can't take a probe."""
    try:
        return function(
            *(probe if value is event else value for value in arguments),
            **{key: probe if value is event else value for key, value in keywords.items()},
        )
    except Exception:  # noqa: BLE001 - if the probe was not the reason, the same comes again
        probe.whole = True
        return function(*arguments, **keywords)


class _Call:
    def __init__(
        self,
        record: AccessRecord,
        profile: torch.profiler.profile,
        seconds: float,
        first_piece_s: float,
        pieces: int,
        output: str,
    ) -> None:
        self.record = record
        self.profile = profile
        self.seconds = seconds
        self.first_piece_s = first_piece_s
        self.pieces = pieces
        self.output = output


def _modules_of(state: Any) -> list[tuple[str, torch.nn.Module]]:
    """Modules in a state with the paths to them: those of the state's own top, and all below each."""
    found: list[tuple[str, torch.nn.Module]] = []
    tops = [("", state)]
    if isinstance(state, dict):
        tops = [(str(key), value) for key, value in state.items()]
    elif isinstance(state, list | tuple):
        tops = [(str(index), value) for index, value in enumerate(state)]
    elif hasattr(state, "__dict__") and not isinstance(state, torch.nn.Module):
        tops = list(vars(state).items())
    for top, value in tops:
        if isinstance(value, torch.nn.Module):
            found += [(".".join(filter(None, (top, name))), module) for name, module in value.named_modules()]
    return found


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def environment(imports: list[t.Import], state: Any) -> t.Environment:
    """The fingerprint of this process, with the device that the state's weights live on."""
    tops = {record.name.partition(".")[0] for record in imports} | {"torch"}
    devices = {str(s.device) for _, tensor in tensors_of(state) if (s := storage_of(tensor)) is not None} - {"cpu"}
    device = "cpu"
    if devices:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else sorted(devices)[0]
    return t.Environment(fingerprint=read_fingerprint(tops, device))
