"""The traced process: imports the function, runs init once and the handler twice for each event, and writes records as it goes.

Under `--once` the handler runs once.
"""

import copy
import functools
import json
import sys
import threading
import time
from collections.abc import Callable
from inspect import iscoroutinefunction
from types import FrameType, ModuleType
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import _disable_current_modes

from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.fingerprint import read_fingerprint
from tidalctl.artifacts.records import digest_json
from tidalctl.artifacts.state.storages import modules_of, storage_of, tensors_of
from tidalctl.artifacts.trace import records as t
from tidalctl.artifacts.trace.file import TraceWriter
from tidalctl.function.context import Context, make_context
from tidalctl.function.event_probe import arguments_digest
from tidalctl.function.init_mark import Init
from tidalctl.function.outputs import answer_of, called, json_text, pieces
from tidalctl.function.process_settings import FirstGenerators
from tidalctl.function.target import Handler
from tidalctl.lineage.dispatch import on_every_thread
from tidalctl.lineage.identity import SourceDigests
from tidalctl.lineage.loaders import LoaderWatch
from tidalctl.lineage.tape import Tape
from tidalctl.tracer.handler.first_uses import AccessMode, AccessRecord, ModuleStack
from tidalctl.tracer.handler.kernels import kernel_signatures, without_inductor
from tidalctl.tracer.init.call import RecordedInit, caller, peak_rss, record_init
from tidalctl.tracer.process.clock import TraceClock
from tidalctl.tracer.request import Request

MOST_STATES = 16  # that are recorded: each is held in memory until the trace ends


class Session:
    """One traced process. The weights are the storages of the states that init gave, numbered as they were found."""

    def __init__(self, writer: TraceWriter, clock: TraceClock, request: Request, note_file: Callable[[str], None]) -> None:
        self.writer = writer
        self.clock = clock
        self.watch = LoaderWatch(note_file)
        self.executed: set[str] = set()
        self.state: Any = None
        self._request = request
        self._root = request.root
        self._digests = SourceDigests()
        self._inits: list[RecordedInit] = []
        self._further: list[t.FurtherCall] = []
        self._event: dict[str, Any] = {}
        self._event_index = 0
        self._generators = FirstGenerators()
        self._weights: dict[int, int] = {}  # of the states that the handler has asked for in this call of it
        self._asked_for: list[RecordedInit] = []
        self._access = AccessRecord(0, self._weights)
        self._weight_count = 0
        self._module_names: dict[int, str] = {}
        self._stack = ModuleStack(self._module_names)

    def after_import(self, module: ModuleType) -> None:
        self.watch.imported(module)

    # -- init

    def answer_init(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The first call of an init with its arguments for an event runs under lineage.

        A later one gets the same state where it would make the same. Of inits that call one another it is the outermost, whose state
        the handler has.
        """
        if self.watch.tape is not None:
            return mark.function(*arguments, **keywords)  # a part of the init that calls it
        if iscoroutinefunction(mark.function):
            raise TidalError(
                f"{mark.name} is async, and no state is that of a coroutine", "name a plain function that it calls"
            )
        event = self._event  # another dict, or a copy, is an argument like any other
        for known in self._inits:
            if known.answers(mark, event, arguments, keywords):
                self._turn_to(known)
                return known.state
        began = time.perf_counter()
        self._watch_code(False)  # init's code is not the handler's, and to be told of each of its calls would double its time
        try:
            with self.clock.entering("init"), _disable_current_modes():
                if why := self._why_not_recorded(mark, arguments_digest(event, arguments, keywords, [self._root])):
                    further = t.FurtherCall(mark.name, self._event_index, caller(self._root), why)
                    if further not in self._further:
                        self._further.append(further)
                        self.writer.write(further)
                    return mark.function(*arguments, **keywords)
                return self._recorded(mark, arguments, keywords, event)
        finally:
            self._watch_code(self.clock.phase == "handler")
            self._access.paused_s += time.perf_counter() - began

    def _why_not_recorded(self, mark: Init, arguments: str | None) -> str | None:
        """Return why the call of an init is not recorded, for a person, or None where it is."""
        for_event = [known.call for known in self._inits if known.call.event == self._event_index]
        if for_event and arguments is None:
            return "its arguments are not JSON"
        if any((call.name, call.arguments) == (mark.name, arguments or "") for call in for_event):
            return "it has been called for this event, and would not give the same again"
        if len({(known.call.name, known.call.arguments) for known in self._inits}) >= MOST_STATES:
            return f"{MOST_STATES} states are recorded already"
        return None

    def _recorded(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any], event: dict[str, Any]) -> Any:
        tape = Tape(self._event_index, self._root, self._digests.of, call=len(self._inits))
        self.watch.tape = tape
        try:
            made = record_init(mark, arguments, keywords, event, tape, self._generators.states)
        finally:
            self.watch.tape = None
        self.writer.write(made.call)
        with self.clock.charging("digests"):
            for path, module in modules_of(made.state):
                self._module_names.setdefault(id(module), path)
            for weight, address in made.weights(self._weight_count):
                made.addresses[address] = weight.index
                self.writer.write(weight)
            self._weight_count += len(made.addresses)
            if not mark.static:
                for record in tape.records:
                    self.writer.write(record)
        self._inits.append(made)
        self._turn_to(made)
        return made.state

    def _turn_to(self, made: RecordedInit) -> None:
        self.state = made.state if self.state is None else self.state
        if not self._asked_for:
            self._weights = {}  # what an earlier call of the handler asked for
        if made not in self._asked_for:
            self._asked_for.append(made)
            self._weights = made.addresses | self._weights  # a storage that two states have is the first one's weight
        self._access.weights = self._weights

    # -- the handler

    def invoke(self, handler: Handler, event: dict[str, Any], index: int) -> None:
        """Run the handler twice on one event, alike instrumented, and write what the first call did."""
        self._event_index = index
        self._generators.put_back()
        again = copy.deepcopy(event)  # the first call may write to its event
        first = self._timed_call(handler, event, self._request.tensorboard)
        record, profile = first.record, first.profile
        with self.clock.charging("profiler"):
            signatures = kernel_signatures(record, profile)
        second = None if self._request.once else self._called_again(handler, again)
        for use in sorted(record.first_uses.values(), key=lambda use: use.ordinal):
            self.writer.write(use)
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
                second_call_s=second.seconds if second is not None else None,
                operators=record.operators,
                peak_rss=peak_rss(),
                repeatable=second is None or first.output == second.output,
            )
        )

    def _called_again(self, handler: Handler, event: dict[str, Any]) -> "_Call | None":
        """The second call; none where the handler can't be called twice on one state, which no function has to stand."""
        try:
            return self._timed_call(handler, event, "")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's function may raise anything
            print(
                f"note: called once more on the same state, the handler raised {type(error).__name__}: no first-launch tax is known",
                file=sys.stderr,
            )
            return None

    def _timed_call(self, handler: Handler, event: dict[str, Any], tensorboard: str) -> "_Call":
        self._event = event
        self._asked_for = []
        record = self._access = AccessRecord(self._event_index, self._weights)
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        keep = torch.profiler.tensorboard_trace_handler(tensorboard, use_gzip=True) if tensorboard else None
        with self.clock.charging("profiler"):
            profile = torch.profiler.profile(activities=activities, on_trace_ready=keep)
            with torch.profiler.record_function("tidalctl"):
                pass  # the first makes torch import something, which the handler's first piece is not to be charged with
            with without_inductor():
                profile.start()
        output: list[Any] = []
        first_piece, encode = 0.0, self._request.function.encode
        mode = functools.partial(AccessMode, record, self._stack)
        self._watch_code(True)
        try:
            with self.clock.entering("handler"), self._stack, on_every_thread(mode):
                context = make_context(self._request.function.module, event, self._request.context)
                record.began = time.perf_counter()
                # as the interpreter would: the mode is on while the generator runs, not only while it is made
                result = _called(handler, event, context)
                streams = hasattr(result, "__next__")
                for piece in pieces(result):
                    first_piece = first_piece or record.elapsed_s()
                    with torch.profiler.record_function("tidalctl: first piece" if not output else "tidalctl: piece"):
                        output.append(answer_of(piece, len(output) if streams else None, encode=encode))
                seconds = record.elapsed_s()
        finally:
            self._watch_code(False)
            with self.clock.charging("profiler"):
                profile.stop()
            self.clock.cost["hooks"] += record.hooks_s
        values = [json.loads(json_text(piece, number if streams else None)) for number, piece in enumerate(output)]
        value = values if streams else values[0]
        return _Call(record, profile, seconds, first_piece, len(output) if streams else 0, digest_json(value))

    def _watch_code(self, on: bool) -> None:
        hook = self._note_code if on else None
        threading.setprofile(hook)  # type: ignore[arg-type]
        sys.setprofile(hook)

    def _note_code(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and self.clock.phase == "handler":
            self.executed.add(frame.f_code.co_filename)


def _called(handler: Handler, event: dict[str, Any], context: Context) -> Any:
    """What the handler gives. Raises TidalError where it is none that can be called."""
    try:
        return called(handler, event, context)
    except TypeError as error:
        frames = error.__traceback__
        if frames is not None and frames.tb_next is not None and frames.tb_next.tb_next is not None:
            raise  # by the function itself
        raise TidalError(
            f"the handler can't be called as handler(event, context): {error}",
            "give it both parameters, or trace with --shape keywords: the event's fields are its arguments",
        ) from None


class _Call(NamedTuple):
    """One call of the handler. `pieces`: how many it yielded, 0 where it returned; `output` is a digest."""

    record: AccessRecord
    profile: torch.profiler.profile
    seconds: float
    first_piece_s: float
    pieces: int
    output: str


def environment(imports: list[t.Import], state: Any, root: str) -> t.Environment:
    """The fingerprint of this process, with the device that the state's weights live on."""
    tops = {record.name.partition(".")[0] for record in imports} | {"torch"}
    devices = {str(s.device) for _, tensor in tensors_of(state) if (s := storage_of(tensor)) is not None} - {"cpu"}
    device = "cpu"
    if devices:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else sorted(devices)[0]
    return t.Environment(fingerprint=read_fingerprint(tops, device, root))
