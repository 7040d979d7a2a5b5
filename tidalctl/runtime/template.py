"""A template: a bundle opened in this process, which answers calls of the function's init from what it holds.

Whatever the template can't answer is done the ordinary way, and `fallback` says why.
"""

import contextlib
import functools
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

from tidalctl.artifacts import fingerprint as fp
from tidalctl.artifacts.bundle import check_file, open_bundle, read_checked, unlisted_files
from tidalctl.artifacts.errors import Corrupt, TidalError
from tidalctl.artifacts.manifest import CODE, DYNAMIC_INIT, PACK, PROVENANCE, RECALL, Manifest
from tidalctl.context import Init, answer_inits_with
from tidalctl.eventprobe import digest_value
from tidalctl.function import Handler, enter_project, import_handler
from tidalctl.runtime.collector import CollectorPaused
from tidalctl.runtime.guard import CallConditions, other_call, other_environ, other_generators, unusable_here
from tidalctl.runtime.imported import module_counts, unforeseen_modules
from tidalctl.runtime.libraries import LibraryLoader
from tidalctl.runtime.mapping import read_ahead
from tidalctl.runtime.packed import PackFinder, PackReader
from tidalctl.runtime.prewarm import Prewarm
from tidalctl.runtime.reader import CodeReader
from tidalctl.runtime.recall import Recall
from tidalctl.runtime.sources import import_from, importable, module_names
from tidalctl.runtime.states import States
from tidalctl.runtime.stream.weights import StreamOptions, WeightStream
from tidalctl.runtime.timeline import Timeline
from tidalctl.surroundings import environ_changes


class Template:
    """One bundle in one process. Open it, `prepare` for the first event, then call `handler`."""

    def __init__(
        self,
        path: Path,
        timeline: Timeline,
        options: StreamOptions | None = None,
        prewarm: str = "auto",
        *,
        forks: bool = False,
    ) -> None:
        options = options or StreamOptions()
        verify = options.verify != "off"
        self.path = path.absolute()
        self.timeline = timeline
        self.fallback: str | None = None
        self.others: dict[str, None] = {}  # inits that were called and are not the bundle's, by name, in order
        self.strategy = ""  # what made the latest state, or will
        self.state_digests: dict[str, str] | None = None  # of the first state, where they are asked for
        self.wants_digests = False
        with timeline.span("start"):
            self.manifest: Manifest = open_bundle(self.path)
            fp.refuse_other_python(self.manifest.fingerprint)
            self.code = CodeReader(self.path, self.manifest, timeline, forks=forks)
            self.pack = PackReader(self.path, self.manifest, verify, timeline)
            self.weights = WeightStream(self.path, self.manifest, options, timeline, self.code.wait)
            self.prewarm = Prewarm(self.path, prewarm, timeline)
            self.recall = Recall(self.path, self.manifest)
            self.states = States(self.path, self.manifest, self.weights, self.prewarm, timeline, self._noted, self._import_late)
        if verify:
            with timeline.span("check"):
                self._check_code()
        self._event: Any = None
        self._never = ""
        self._finder: PackFinder | None = None
        self._event_fallback: str | None = None
        self.collector = CollectorPaused()
        self._dynamic: types.ModuleType | None = None
        self._seeds: dict[str, Any] = {}
        self._conditions: CallConditions | None = None  # until the function is imported
        self._called = False  # the bundle's init, by an earlier call in this process
        self._modules_before = frozenset(sys.modules)

    def _check_code(self) -> None:
        """Check everything that will be imported or unpickled. Weights, code pack and what is recalled are checked by their readers."""
        others = {*self.weights.device.files, PACK, RECALL}
        for name in self.manifest.files:
            if name not in others:
                check_file(self.path, self.manifest, name)
        planted = [
            name for name in unlisted_files(self.path, self.manifest) if name.startswith(f"{CODE}/") and importable(name)
        ]
        if planted:
            raise Corrupt(f"{self.path} holds {planted[0]}, which its manifest does not list", "compile the bundle again")

    def prepare(self, event: Any, argv: tuple[str, ...] | None = (), eager: bool = False) -> Handler:
        """Import the function for an event and let its init be answered from here. With `eager`, init runs the ordinary way.

        Where `argv` is None, this process is somebody else's: its sys.argv stays, and its sys.path keeps its first entry.
        """
        manifest, timeline = self.manifest, self.timeline
        changed = fp.changed_distributions(manifest.fingerprint, sys.path)
        self._never = "--eager was given" if eager else unusable_here(manifest, argv, changed)
        if changed:
            self.pack.put_aside(f"the code pack was made with {', '.join(changed[:3])}, which is not installed here")
        self.begin(event)
        code = self.path / CODE
        home = code if self.fallback is None and not self._may_run_init() else self._project() or code
        files = [name.removeprefix(f"{CODE}/") for name in manifest.files if name.startswith(f"{CODE}/")]
        self._refuse_taken_modules(files)
        if argv is None:
            sys.path.append(str(code))
        else:
            enter_project(code, home / manifest.function.source, argv)
        import_from(code, files, home, self.pack.own_code)
        if not eager:  # which is how the plain function goes about it
            self._finder = PackFinder(self.pack)
            self._finder.install()
            if not self.pack.unusable:
                with timeline.span("start"):
                    self._finder.after = self.recall.begin(self.weights.options.verify != "off")
            LibraryLoader(manifest, self._finder, timeline).install()
        if answer_inits_with(None if eager else self._answer) is not None:  # before the import, which may call init itself
            raise TidalError(
                "another bundle runs in this process already", "one bundle a process: its modules are the process's"
            )
        with timeline.span("imports"):
            handler = import_handler(manifest.function)
            if self.fallback is None:
                self._import_foreseen()
        self._check_machine()
        self._note_seeds()
        self._conditions = CallConditions(manifest, lambda: [str(code), str(self._project() or code)])
        self.code.finish()
        timeline.mark("imported")
        return handler

    def _may_run_init(self) -> bool:
        """Whether only generators or a device will tell, once the function is imported, if init must run, and find its files."""
        guard = self.manifest.guard
        return bool(
            self.strategy == "replay"
            or guard.drawn
            or guard.generators
            or guard.later_calls == "run_init"
            or self.manifest.fingerprint.device != "cpu"
        )

    def _note_seeds(self) -> None:
        """Of generators that init draws from as it finds them: how they are seeded where this event's handler has not done it."""
        if drawn := self.manifest.guard.drawn:
            from tidalctl.ambient import seeds

            self._seeds |= seeds(name for name in sorted(drawn) if self._seeds.get(name) is None)

    def _refuse_taken_modules(self, files: list[str]) -> None:
        """Raise TidalError where a module that the bundle brings is in this process already, from elsewhere."""
        for name in module_names(files):
            if name in sys.modules:
                there = getattr(sys.modules[name], "__file__", None) or "this process"
                raise TidalError(
                    f"the function's module {name} is imported already, from {there}", "start a process of its own for it"
                )

    def begin(self, event: Any) -> None:
        """Turn to an event: from now on init is answered for this one, where the snapshot is its state."""
        if self._conditions is not None:  # what an earlier event's handler has seeded or set is nothing to this one
            self._conditions.restart()
            self._seeds = {}
            self._note_seeds()
        self._turn_to(event)

    def _turn_to(self, event: Any) -> None:
        self._event = event
        self._event_digest = _digest(event)
        self.fallback = self._never or None
        self.strategy = "eager" if self.fallback else self.manifest.strategy
        if self.fallback is None:
            self.fallback = self._not_served(event)
            if self.fallback:
                self.strategy = "eager"
        self._event_fallback = self.fallback if self.strategy == "eager" else None
        self._event_strategy = self.strategy

    def _check_machine(self) -> None:
        """Refuse where there is no device, fall back for another, or another CPU. Late, so that the function imports torch, not we."""
        fp.refuse_missing_device(self.manifest.fingerprint)
        fingerprint = self.manifest.fingerprint
        if not self._never and (other := fp.other_cpu(fingerprint) or fp.other_device(fingerprint)):
            self._never = self.fallback = self._event_fallback = other

    def _import_foreseen(self) -> None:
        """Import what unpickling will ask for, so that its time is seen as what it is. A module that is gone shows later."""
        for module in dict.fromkeys(name.partition(":")[0] for name in self.manifest.globals):
            if module not in sys.modules:
                __import__(module)

    def _not_served(self, event: Any) -> str | None:
        """Ask the bundle's dynamic init, which is what compile wrote for this function, and let the files that it will read be read."""
        with self.timeline.span("start"):
            if self._dynamic is None:
                checks = self.weights.options.verify != "off"
                source = read_checked(self.path, self.manifest, DYNAMIC_INIT, check=checks)
                self._dynamic = types.ModuleType("tidalctl_dynamic_init")
                exec(compile(source, str(self.path / DYNAMIC_INIT), "exec"), self._dynamic.__dict__)
            if self.manifest.strategy == "script":
                with contextlib.suppress(LookupError, TypeError):  # refusal() says it in words
                    for path in self._dynamic.files(event):
                        read_ahead(Path(path))
            reason: str | None = self._dynamic.refusal(event)
            return reason

    def _project(self) -> Path | None:
        """Where the function's data files lie, for an init that has to read them again. No code is ever imported from there."""
        root = Path(str(self._provenance.get("root", "")))
        return root if root.is_absolute() and root.is_dir() else None

    def _noted(self) -> tuple[dict[str, Any], Path]:
        return self._provenance, self._project() or self.path / CODE

    @functools.cached_property
    def _provenance(self) -> dict[str, Any]:
        """What compile noted of where the function lay. Where that is lost, a start may be slower, and no other."""
        try:
            found = json.loads((self.path / PROVENANCE).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _answer(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        self._check_machine()
        if mark.name != self.manifest.init:  # the bundle holds what the first one that the trace saw gives
            self.others[mark.name] = None
            with self.timeline.span("init"):
                return mark.function(*arguments, **keywords)
        if self._called and self.manifest.guard.later_calls == "run_init":
            with self.timeline.span("init"):
                return mark.function(*arguments, **keywords)
        self._called = True
        before = dict(os.environ)
        state = self._state_of(mark, arguments, keywords)
        if self._conditions is not None:
            self._conditions.accept(environ_changes(before, os.environ))
        return state

    def _state_of(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The state of a call of the bundle's init: from the bundle, or made by init where the bundle's is not the call's."""
        if self._event_digest != _digest(self._event):  # the handler has changed it since
            self._turn_to(self._event)
        self.strategy = self._event_strategy  # whatever became of an earlier call
        reason = self._event_fallback or self._refusal(mark, arguments, keywords)
        state = None
        if not reason:
            try:
                state = self._made(mark, arguments, keywords)
            except self._not_built() as error:
                reason = f"{DYNAMIC_INIT} could not make its part: {error}"
        if reason:
            self.strategy = "eager"
            self.fallback = self.fallback or reason
            with self.timeline.span("init"):
                state = mark.function(*arguments, **keywords)
        self._note_seeds()  # of a device that init was the first to use
        self.timeline.mark("state made")
        if self.wants_digests and self.state_digests is None:
            from tidalctl.runtime.restore import digests_of

            with self.timeline.span("state digests"):
                self.weights.wait()
                self.state_digests = digests_of(state)
        return state

    @staticmethod
    def _not_built() -> type[Exception]:
        """The exception's class, whose module imports torch: asked for only where something was raised."""
        from tidalctl.runtime.restore import NotBuilt

        return NotBuilt

    def _made(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The state by the bundle's strategy."""
        if self.strategy == "replay":
            return self.states.replayed(mark, arguments, keywords)
        return self.states.whole(self._dynamic if self.strategy == "script" else None, self._event)

    def make_ready(self) -> None:
        """Have the next state on its device, and put together, before init is asked for it: for a process that waits for requests.

        What depends on the event is left, and all of it where the function is not imported yet.
        """
        self.weights.make_ready()
        if self.manifest.strategy == "snapshot" and not self._never:
            self.states.make_ready()

    def _import_late(self) -> None:
        """While the first weights are on their way, import what the handler is going to import."""
        if self._finder is not None and not self.weights.may_begin:
            with self.timeline.span("imports"):
                self._finder.import_late(lambda: not self.weights.may_begin)

    def wait(self) -> None:
        """Return when all that an output may come from is known to be what compile wrote; the start is over. Raises what is wrong."""
        self.pack.check()
        self.weights.refuse_wrong()
        self.over()

    def over(self) -> None:
        """The start is over, however it went: the interpreter is as it was."""
        self.recall.end()
        self.collector.resume()

    def _refusal(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> str:
        """Why the bundle's state is not what this call of init would give; empty where it is."""
        manifest, guard = self.manifest, self.manifest.guard
        reason = ""
        if self.strategy != "replay":  # which runs what hangs on the event
            reason = other_call(manifest, mark, self._event, arguments, keywords)
        return (
            reason
            or (self._conditions is not None and self._conditions.mismatch())
            or other_generators(manifest, guard.generators, guard.drawn, self._seeds)
            or other_environ(manifest)
        )

    def module_counts(self) -> dict[str, Any]:
        """How this process's Python modules were imported, and why none came from the pack, where none could."""
        changed = self._finder.changed if self._finder is not None else ()
        return {**module_counts(self._modules_before, self.pack.served, changed), "unusable": self.pack.unusable or None}

    def unforeseen_modules(self) -> list[str]:
        """Modules that this process imported and the trace did not list: the misses of a start."""
        return unforeseen_modules(self._modules_before.union(self.manifest.modules))


def _digest(event: Any) -> str:
    """Of an event as it is now; empty where it is no JSON."""
    try:
        return digest_value(event)
    except (TypeError, ValueError):
        return ""
