"""A template: a bundle opened in this process, which answers calls of the function's init from what it holds.

Whatever the template can't answer is done the ordinary way, and `fallback` says why.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts import fingerprint as fp
from tidalctl.artifacts.bundle.directory import check_file, open_bundle
from tidalctl.artifacts.bundle.manifest import IMPORT_CACHE, PACK, HeldState, Manifest, state_prefix
from tidalctl.artifacts.bundle.provenance import changed_sources, folder_of, home_of, provenance_fields
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.errors import TidalError
from tidalctl.function.filled_object import filling_objects
from tidalctl.function.init_mark import Init, answer_inits_with
from tidalctl.function.target import Handler
from tidalctl.function.working_environment import environ_changes, set_environ
from tidalctl.runtime import conditions
from tidalctl.runtime.event_strategy import EventStrategy
from tidalctl.runtime.imports.function_imports import FunctionImports
from tidalctl.runtime.kernels.prewarm import Prewarm
from tidalctl.runtime.process.collector import CollectorPaused
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.requirement import Requirement
from tidalctl.runtime.states import States
from tidalctl.runtime.weights.weight_stream import StreamOptions, WeightStream


class Origin(msgspec.Struct, frozen=True):
    """What the provenance says: where the project lies, when the bundle was made, and size and time of files that a replay answers for.

    The files are those of the manifest's answers, sorted.
    """

    root: str = ""
    compiled: str = ""
    sources: tuple[Any, ...] = ()


class Template:
    """One bundle in one process. Open it, `prepare` for the first event, then call `handler`.

    `strategy` and `fallback` are of the latest call of init, or what they will be for the event.
    """

    def __init__(
        self,
        path: Path,
        timeline: Timeline,
        options: StreamOptions | None = None,
        prewarm: str = "auto",
        require: str | None = None,
    ) -> None:
        options = options or StreamOptions()
        verify = options.verify != "off"
        self.path = Path(os.path.abspath(path))  # without `..`, by which places in it are told
        self.timeline = timeline
        self.other_inits: dict[str, None] = {}  # that were called and are not the bundle's, by name, in order
        self.ends_soon = False  # this process is for one event: nothing need be freed
        self.wants_digests = False
        self.state_digests: dict[str, str] | None = None  # of the first call for each state, where they are asked for
        with timeline.span("start"):
            self.manifest: Manifest = open_bundle(self.path)
            self.requirement = Requirement(self.manifest, require)
            fp.refuse_other_python(self.manifest.fingerprint)
            self.imports = FunctionImports(self.path, self.manifest, timeline, verify=verify)
            self.weights = WeightStream(self.path, self.manifest, options, timeline, self.imports.read_ahead.wait)
            self.prewarm = Prewarm(self.path, prewarm, timeline)
            self.states = States(
                self.path,
                self.manifest,
                self.weights,
                self.prewarm,
                timeline,
                self._replayed_files,
                self._import_late,
                lambda: str(self.imports.home),
            )
            self.event_strategy = EventStrategy(self.path, self.manifest, timeline, self._roots, verify=verify)
        if verify:
            with timeline.span("check"):
                self._check_files()
        self.collector = CollectorPaused()
        self.on_missing: Callable[[list[str]], None] = lambda names: None  # called before the import, where files are not here
        self.on_over: Callable[[], None] | None = None  # called each time that `over` is
        self._noted: Origin | None = None
        self._found_home: Path | None = None
        self._handler: Handler | None = None  # of a function that was imported before there was an event
        self._set_by_imports: dict[str, str | None] = {}  # variables, then
        self.restored: set[int] = set()  # states that came from the bundle
        self._asked_for: set[int] = set()  # states, by earlier calls in this process
        self._in_order: set[int] = set()  # of them those for which other inits had left what they had left in the trace
        self._ran_otherwise: set[str] = set()  # inits, with arguments that no state is for
        self._left_more: list[int] = []  # of them those that leave more than a state, in order; -1 for another call of an init
        self._call_reason: Reason | None = None  # of the first call for the event that init had to answer itself
        self._call_strategy: str | None = None

    @property
    def strategy(self) -> str:
        return self._call_strategy or self.event_strategy.strategy

    @property
    def fallback(self) -> Reason | None:
        """Why init runs, or ran, the ordinary way for this event."""
        return self._call_reason or self.event_strategy.reason

    def _check_files(self) -> None:
        """Check everything that will be imported or unpickled, but for what its own reader checks: weights, code pack, import cache."""
        checked_by_readers = {*self.weights.device.files, PACK, IMPORT_CACHE}
        for name in self.manifest.files:
            if name not in checked_by_readers:
                check_file(self.path, self.manifest, name)
        self.imports.refuse_planted()

    def prepare(self, event: Any, argv: tuple[str, ...] | None = (), eager: bool = False) -> Handler:
        """Import the function for an event and let its init be answered from here. With `eager`, init runs the ordinary way.

        Where `argv` is None, this process is somebody else's: its sys.argv stays, and its sys.path keeps its first entry.
        Raise StateNotUsed where it is known already that the state can't be made as `--require` says.
        """
        strategy = self.event_strategy
        strategy.look_at_process(argv, eager=eager)
        self.begin(event)
        self.requirement.check(strategy.reason)
        if not eager and (missing := self.missing_files(optional=False)):
            self.on_missing(missing)
        if self._handler is None:
            return self._imported(argv, eager=eager)
        sys.argv[1:] = argv or ()
        set_environ(self._set_by_imports)  # on top of what this process has of its caller
        strategy.function_imported()
        self.timeline.mark("imported")
        return self._handler

    def prepare_again(self, event: Any) -> Handler:
        """Turn to another event in a process that has answered one: what that one left is there, as in any process that goes on."""
        assert self._handler is not None
        self.begin(event)
        return self._handler

    def import_ahead(self) -> None:
        """Import the function before there is an event: in a process whose forks `prepare` for one each, as processes of their own."""
        before = dict(os.environ)
        self.event_strategy.look_at_process(None, eager=False)
        self.event_strategy.read_script()  # while the bundle is the one that was opened
        self._handler = self._imported((), eager=False)
        self._set_by_imports = environ_changes(before, os.environ)

    def forget_variable(self, name: str) -> None:
        """Leave a variable that imports have set to whoever is answered: what they made of it was the user's of the time."""
        self._set_by_imports.pop(name, None)

    def _imported(self, argv: tuple[str, ...] | None, *, eager: bool) -> Handler:
        strategy = self.event_strategy
        self.imports.install(
            self._home() if strategy.may_need_project else self.imports.code, argv, strategy.changed_packages, plain=eager
        )
        provider = None if eager else filling_objects(self.answer)
        if answer_inits_with(provider) is not None:  # before the import, which may call init itself
            raise TidalError(
                "another bundle runs in this process already", "one bundle a process: its modules are the process's"
            )
        handler = self.imports.import_handler(names_of_state=strategy.reason is None)
        strategy.function_imported()
        self.imports.read_ahead.finish()
        self.timeline.mark("imported")
        return handler

    def refuse_process(self, argv: tuple[str, ...] | None) -> None:
        """Raise StateNotUsed where no event's state can be made here as `--require` says."""
        self.event_strategy.look_at_process(argv, eager=False)
        self.requirement.check(self.event_strategy.process_reason)

    @property
    def state_made(self) -> bool:
        """Whether a call of the bundle's init was answered, in one way or another."""
        return "state made" in self.timeline.marks

    def begin(self, event: Any) -> None:
        """Turn to an event: from now on init is answered for this one, where the bundle serves it."""
        self.requirement.begin()
        self._call_reason = self._call_strategy = None
        self.event_strategy.begin(event)

    def _roots(self) -> list[str]:
        """Return the folders in which the function, or its project, lies."""
        return [str(self.imports.code), str(self._home())]

    def _home(self) -> Path:
        """Return where the function's data files lie, for an init that has to read them again. No code is ever imported from there."""
        if self._found_home is None:
            self._found_home = home_of(self._origin().root, self.path, self.manifest) or self.imports.code
        return self._found_home

    def _origin(self) -> Origin:
        self._noted = self._noted or provenance_fields(self.path, Origin)
        return self._noted

    def missing_files(self, *, optional: bool) -> list[str]:
        """Return files that the traced function opened, that are not shipped, and that lie nowhere that this start looks.

        With `optional` those, too, that the function may do without.
        """
        if not self.manifest.needs:
            return []
        from tidalctl.runtime.needed_files import missing_files

        init_runs = self.strategy in ("eager", "replay")
        found = missing_files(self.manifest, self._roots(), init_runs=init_runs)
        return [needed.file.removeprefix("project:") for needed in found if optional or not needed.optional]

    def changed_sources(self) -> list[str]:
        """Return the project's sources that are not what the bundle holds of them, where the project is there.

        Only what is newer than the bundle is read, which takes no time that counts; `verify` reads all of it.
        """
        project = folder_of(self._origin().root, self.path)
        there = project is not None and (project / self.manifest.function.source).is_file()
        return changed_sources(self.manifest, project, self._origin().compiled) if project is not None and there else []

    def _replayed_files(self) -> tuple[Mapping[str, Any], Path]:
        files = sorted({answer.file for answer in self.manifest.answers})
        return dict(zip(files, self._origin().sources, strict=False)), self._home()

    def answer(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Answer a call of an init."""
        self.event_strategy.look_at_machine()
        held = self.event_strategy.held(mark.name, arguments, keywords)
        if held is None:
            self.other_inits[mark.name] = None
            self._left_more.append(-1)
            return self._run_init(mark, arguments, keywords)
        if self._finds_what_it_left(held):
            return self._run_init(mark, arguments, keywords)
        before = dict(os.environ)
        state = self._state(held, mark, arguments, keywords)
        self.event_strategy.init_called(environ_changes(before, os.environ))
        return state

    def _finds_what_it_left(self, held: HeldState) -> bool:
        """Whether init may find parts of its state where an earlier call in this process has left them."""
        guard = held.guard
        left = held.number in self._asked_for or (held.init in self._ran_otherwise and not guard.items)
        return guard.later_calls == "run_init" and left

    def _run_init(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        with self.timeline.span("init"):
            return mark.function(*arguments, **keywords)

    def _state(self, held: HeldState, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Return the state of a call of a bundle's init: from the bundle, or made by init where the bundle's is not the call's."""
        if self.event_strategy.decide_again():
            self._call_reason = None
        reason = self.event_strategy.call_mismatch(held, arguments, keywords)
        if reason is None:
            again = held.number in self._in_order
            reason = conditions.order_mismatch(held, mark.static, again, self._asked_for, self._left_more)
        if reason is None or reason.code not in (Cause.ORDER_DIFFERS.code, Cause.CALL_DIFFERS.code):
            self._in_order.add(held.number)
        matched = reason is None or reason.code != Cause.CALL_DIFFERS.code
        if matched:
            self._asked_for.add(held.number)
        else:
            self._ran_otherwise.add(held.init)
        if not matched or (held.guard.leaves_more and held.number not in self._left_more):
            self._left_more.append(held.number if matched else -1)
        self._call_strategy = "snapshot" if held.number else self.event_strategy.strategy
        state = None
        if reason is None:
            try:
                state = self._state_from_bundle(held, mark, arguments, keywords)
                self.restored.add(held.number)
            except self._script_failed() as error:
                reason = Cause.SCRIPT_FAILED.of(error=error)
        if reason is not None:
            self._call_strategy = "eager"
            self._call_reason = self._call_reason or reason
            self.requirement.check(self._call_reason)
            state = self._run_init(mark, arguments, keywords)
            if held.guard.later_calls == "same":
                self.states.ran(held.init, mark.function)
        self.timeline.mark("state made")
        if self.wants_digests and held.number in self._asked_for:
            self._note_digests(held, state)
        return state

    def _note_digests(self, held: HeldState, state: Any) -> None:
        """Note the digests of a state's weights, in the first call for it."""
        from tidalctl.runtime.restore import digests_of

        with self.timeline.span("state digests"):
            self.weights.wait()
            noted = self.state_digests or {}
            prefix = state_prefix(held.number, held.init)
            self.state_digests = {prefix + name: digest for name, digest in digests_of(state).items()} | noted

    @staticmethod
    def _script_failed() -> type[Exception]:
        """The exception's class, whose module imports torch: asked for only where something was raised."""
        from tidalctl.runtime.restore import ScriptFailed

        return ScriptFailed

    def _state_from_bundle(self, held: HeldState, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if self.strategy == "replay":
            return self.states.replayed(mark, arguments, keywords)
        if mark.statements is not None:
            mark.statements.define()
        script = None if held.number else self.event_strategy.script
        return self.states.restore(held, mark.function, script, self.event_strategy.event)

    def make_ready(self, *, before_first: bool = False) -> None:
        """Have the next state on its device, and put together, before init is asked for it: for a process that waits for requests.

        What depends on the event is left, and all of it where the function is not imported yet. With `before_first` that is the first
        state of all.
        """
        self.weights.make_ready()
        if self.manifest.strategy == "snapshot" and self.event_strategy.process_reason is None:
            self.states.make_ready(before_first=before_first)

    def _import_late(self) -> None:
        """While the first weights are on their way, import what the handler is going to import."""
        self.imports.import_late(lambda: not self.weights.may_begin)

    def wait(self) -> None:
        """Return when all that an output may come from is known to be what compile wrote; the start is over. Raise what is wrong."""
        self.requirement.refuse_unmet()
        self.imports.pack.check()
        self.weights.refuse_wrong()
        self.over()

    def let_out(self) -> None:
        """Return when an output may leave: all that it may come from is known to be right, and no more code is taken from the pack."""
        self.wait()
        self.imports.pack.drop(keep_memory=self.ends_soon)

    def over(self) -> None:
        """The start is over, however it went: the interpreter is as it was."""
        self.imports.import_cache.end(keep_memory=self.ends_soon)
        self.collector.resume()
        if self.on_over is not None:
            self.on_over()
