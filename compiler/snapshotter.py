"""Answers calls of init as the plain function's would be, and writes what the first one gives to disk."""

import os
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from tidalctl.ambient import (
    GENERATORS,
    FirstGenerators,
    ambient_digests,
    begun,
    changed,
    read_ambient,
    torch_settings,
)
from tidalctl.compiler.first_call import FirstCall
from tidalctl.compiler.snapshot import SnapshotRequest
from tidalctl.compiler.watches import Threads, noting_imports, noting_seeds
from tidalctl.context import Init
from tidalctl.surroundings import Surroundings

if TYPE_CHECKING:
    from tidalctl.artifacts.skeleton import Place
    from tidalctl.compiler.early_globals import EarlyGlobals
    from tidalctl.compiler.memo import Held
    from tidalctl.compiler.module_state import Global, ModuleState
    from tidalctl.compiler.snapshot_write import Effects


class Ambient(NamedTuple):
    """What a restore sets, and what it must find: digests of generators, and those that nobody may have seeded (see Guard)."""

    kept: dict[str, Any]
    generators: dict[str, str]
    drawn: tuple[str, ...]


class Snapshotter:
    """Answers calls of init as it would itself. The first one's state is written."""

    def __init__(self, request: SnapshotRequest) -> None:
        self._request = request
        self.report: dict[str, Any] = {"outputs": (), "states": {}}
        self.error: OSError | None = None
        self._at_import: tuple[ModuleState, Surroundings] | None = None
        self._surroundings: Surroundings | None = None
        self._early: EarlyGlobals | None = None
        self._event_index = 0
        self._generators = FirstGenerators()
        self._watched: tuple[ModuleState, list[Global]] | None = None
        self._left: dict[str, str] = {}
        self._call: FirstCall | None = None
        self._held: Held | None = None

    def begin(self, index: int) -> None:
        """Turn to an event, which finds the random generators as the first one did."""
        self._event_index = index
        if "torch" in sys.modules:
            self._generators.put_back()

    def imported(self) -> None:
        """The function's module is there. What it changes from now on and before it calls init, init may look at."""
        from tidalctl.compiler.module_state import ModuleState

        if "init" not in self.report:
            self._at_import = ModuleState(self._request.root), Surroundings()

    def answer(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if self._at_import is not None:
            self._look_around(mark, *self._at_import)
        self._at_import = None
        if self._request.folder and "init" not in self.report:
            state = self._noting_what_is_left(mark, arguments, keywords)
        else:
            state = self._timed(mark, arguments, keywords)
        self._note_state(mark, state)
        return state

    def _look_around(self, mark: Init, modules: "ModuleState", surroundings: Surroundings) -> None:
        """What the function has set since its import, before it calls init for the first time."""
        if early := [(module, name) for module, values in modules.kept().items() for name in values]:
            from tidalctl.compiler.early_globals import EarlyGlobals

            self._early = EarlyGlobals(early, modules)
        self._set_early(mark, modules.changed_attribute())
        self._surroundings = surroundings
        roots = self._roots()
        directory = surroundings.place(roots)
        self.report |= {
            "moved": surroundings.moved(),
            "directory": directory,
            "assigned": surroundings.digests(surroundings.assigned(), roots),
        }
        if directory.startswith(os.sep):
            self.report.setdefault(
                "cause", f"the working directory is {directory} when {mark.name} is called, outside of the project"
            )
        if "<locals>" in mark.function.__qualname__ and mark.function.__closure__:
            self.report.setdefault("cause", f"{mark.name} is defined in a function, and takes variables of it")

    def _set_early(self, mark: Init, name: str) -> None:
        if name:
            self.report.setdefault("cause", f"{name} is set before {mark.name} is called, so that the state may depend on it")

    def _roots(self) -> list[str]:
        return [os.path.realpath(self._request.root)]

    def _noting_what_is_left(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The first call, with what it leaves otherwise than it found it."""
        self._call = call = FirstCall(mark, arguments, keywords)
        state = self._first_noting_looks(mark, arguments, keywords)
        call.over()
        surroundings = self._surroundings or Surroundings()  # none where the function's import calls init
        self.report |= {"left": call.left, "left_assigned": surroundings.digests(call.assigned, self._roots())}
        return state

    def _first_noting_looks(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The first call, where the function has set globals before it: init must not have looked at them."""
        if self._early is None:
            return self._stored(mark, arguments, keywords)
        self._set_early(mark, self._early.held(mark.function))
        with self._early as early:
            state = self._stored(mark, arguments, keywords)
        self._set_early(mark, early.looked_at())
        return state

    def call_again(self) -> None:
        """Once all outputs are there: whether init gives the same where it finds what it left itself."""
        asked = self._call is not None and (self._call.left_anything or self._held)
        if self._call is None or not asked or "cause" in self.report:
            return
        from tidalctl.artifacts.skeleton import skeleton_digest

        state, verdict = None, ""
        try:
            state = self._call.again()
            built = skeleton_digest(state), _weight_digests(state)
            repeats = built == (self.report["skeleton"], self.report["states"][0])
            verdict = self._held.verdict(state) if self._held else ""
        except Exception:  # noqa: BLE001 - init may not expect to be called twice, or find no memory for it
            repeats = False
        if self._call.left_anything:
            self.report["repeats"] = repeats
        if self._held:
            self._note_verdict(verdict)

    def _note_verdict(self, verdict: str) -> None:
        """Of a state of which something lies in globals that init sets: what of it a further call gave again."""
        self.report |= {"memo": verdict == "same", "memo_parts": verdict == "parts", "once": not verdict}

    def _timed(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        began = time.perf_counter()
        state = mark.function(*arguments, **keywords)
        if self._early is None:  # which slows it
            self.report.setdefault("init_s", time.perf_counter() - began)
        return state

    def _stored(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Make a state, and write it with what else making it has changed, where the request wants it stored."""
        from tidalctl.compiler.holders import held_elsewhere
        from tidalctl.compiler.memo import Held, copied
        from tidalctl.compiler.module_state import ModuleState, is_atom
        from tidalctl.compiler.places import within
        from tidalctl.compiler.snapshot_write import NotStored, SnapshotWriter

        modules = ModuleState(self._request.root)
        self.report |= {"init": mark.name, "settings": torch_settings()}
        before, directory, path, threads = read_ambient(), os.getcwd(), list(sys.path), Threads()
        with noting_imports(modules), noting_seeds() as seeded:
            state = self._timed(mark, arguments, keywords)
        if attribute := modules.changed_attribute():
            self.report.setdefault("cause", f"{mark.name} sets {attribute}, which no snapshot holds")
        elif cache := modules.cache_with(state, mark.function):
            self.report.setdefault("cause", f"{cache} keeps what {mark.name} gives, and no snapshot holds a cache")
        elif work := threads.started(modules):
            self.report.setdefault("cause", f"{mark.name} starts a thread that runs {work}, and no snapshot holds a thread")
        elif gone := modules.gone():
            self.report.setdefault("cause", f"{mark.name} deletes {gone}")
        elif sys.path != path:
            self.report.setdefault("cause", f"{mark.name} changes sys.path")
        elif os.getcwd() != directory:
            self.report.setdefault("cause", f"{mark.name} changes the working directory")
        if "cause" in self.report or not self._request.store:
            return state
        after = read_ambient()
        self.report["memo"] = hasattr(mark.function, "cache_info") or modules.holds(state)
        ambient = self._ambient(before, after, seeded)
        self.report |= {"generators": ambient.generators, "drawn": ambient.drawn}
        writer = SnapshotWriter(self._request)
        kept = modules.kept()  # before anybody looks into globals, which changes some: a StringIO gets a dict of attributes
        elsewhere = held_elsewhere(modules, kept, state)
        untouched = modules.untouched()
        shared = within(untouched, is_atom)
        effects = _effects(modules, ambient, kept, shared)
        try:
            if elsewhere:
                raise NotStored(f"{elsewhere}: {mark.name} changes it in place, and what else holds it would hold another one")
            if kind := copied([state, effects.values], list(untouched.values()), shared):
                raise NotStored(f"it holds a {kind} from deep inside a global that it leaves alone, which would be a copy")
            writer.write(state, effects)
        except NotStored as reason:
            self.report["cause"] = str(reason)
        except OSError as error:
            self.error = error  # the function around this call may swallow it
            raise
        if not hasattr(mark.function, "cache_info"):
            self._held = Held(state, effects.values, shared) or None  # it keeps the state alive
        self._watched = (modules, effects.places)
        self._left = modules.digests(self._watched[1])
        self.report |= writer.report
        return state

    def _ambient(self, before: dict[str, Any], after: dict[str, Any], seeded: set[str]) -> Ambient:
        """Of what making the state left otherwise than it was `before`: what a restore sets, and must find for that to be right."""
        before = begun(before, after, seeded)
        left = changed(before, after)
        left |= {name: after[name] for name in seeded if name in after}  # as it was before, maybe, and by chance
        redrawn = {"torch.rng"} if self._request.redraws else set()
        advanced = [name for name in GENERATORS if name in before and name in left and name not in seeded | redrawn]
        began = ambient_digests({name: before[name] for name in advanced})
        alike = {name: digest for name, digest in began.items() if digest == self._request.generators.get(name)}
        # one that init seeds as it was before is unchanged, in the trace as here
        traced = {name: self._request.generators.get(name) for name in seeded} | self._request.ambient
        known = {name for name, digest in ambient_digests(left).items() if digest == traced.get(name)}
        kept = {name: value for name, value in left.items() if name in known - redrawn}
        # one that began otherwise in the trace and ended alike was seeded by init, in a way that nobody saw
        drawn = tuple(name for name in advanced if name not in alike and name not in kept)
        return Ambient(kept, alike, drawn)

    def _note_state(self, mark: Init, state: Any) -> None:
        """The digests of what the first call for an event built, for the compiler to compare."""
        if self._event_index in self.report["states"] or self.report.get("init", mark.name) != mark.name:
            return
        from tidalctl.artifacts.skeleton import skeleton_digest

        if self._watched is not None:
            now = self._watched[0].digests(self._watched[1])
            if other := [name for name in now if now[name] != self._left[name]]:
                self.report.setdefault("globals_differ", other[0])
        if "skeleton" not in self.report:
            self.report["skeleton"] = skeleton_digest(state)
        self.report["states"][self._event_index] = _weight_digests(state)


def _effects(
    modules: "ModuleState", ambient: Ambient, kept: dict[str, dict[str, Any]], shared: "dict[int, Place]"
) -> "Effects":
    from tidalctl.artifacts.filled import contents
    from tidalctl.compiler.snapshot_write import Effects

    bound = {module: dict(values) for module, values in kept.items()}
    filled: dict[str, dict[str, Any]] = {}
    places: dict[int, Place] = {}
    for module, name in [(module, name) for module, values in bound.items() for name in values]:
        value = bound[module][name]
        if modules.is_object_of_before((module, name), value) and (held := contents(value)) is not None:
            filled.setdefault(module, {})[name] = held
            places[id(value)] = module, name
            del bound[module][name]
    return Effects(ambient.kept, bound, filled, modules.imported, shared | places)


def _weight_digests(state: Any) -> dict[str, str]:
    from tidalctl.artifacts.storages import digest_of, storage_names

    return {names[0]: digest_of(storage) for names, _, storage in storage_names(state).values()}
