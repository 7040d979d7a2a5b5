"""Answers calls of init as the plain function's would be, and writes what the first one gives to disk."""

import os
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from tidalctl.artifacts.bundle.manifest import LaterCalls
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.compiler.snapshot.records import SnapshotRequest
from tidalctl.function.init_mark import Init
from tidalctl.function.process_settings import GENERATORS, FirstGenerators, ambient_digests, begun, changed
from tidalctl.function.working_environment import Surroundings

if TYPE_CHECKING:
    from tidalctl.artifacts.state.slots import Slot
    from tidalctl.compiler.side_effects.project_globals import ProjectGlobals


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
        self._at_import: tuple[ProjectGlobals, Surroundings] | None = None
        self._event_index = 0
        self._generators = FirstGenerators()
        self._watched: tuple[ProjectGlobals, dict[Slot, str]] | None = None

    def begin(self, index: int) -> None:
        """Turn to an event, which finds the random generators as the first one did."""
        self._event_index = index
        if "torch" in sys.modules:
            self._generators.put_back()

    def imported(self) -> None:
        """The function's module is there. What it changes from now on and before it calls init, init may look at."""
        from tidalctl.compiler.side_effects.project_globals import ProjectGlobals

        if "init" not in self.report:
            self._at_import = ProjectGlobals(self._request.root), Surroundings()

    def answer(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if self._at_import is not None:
            self._look_around(mark, *self._at_import)
        self._at_import = None
        if self._request.folder and "init" not in self.report:
            state = self._stored(mark, arguments, keywords)
        else:
            state = self._timed(mark, arguments, keywords)
        self._note_state(mark, state)
        return state

    def _look_around(self, mark: Init, at_import: "ProjectGlobals", surroundings: Surroundings) -> None:
        """Note what the function has set since its import, before it calls init for the first time."""
        # of the object that init fills a start compares what it holds
        changed = (slot for slot, value in at_import.changed().items() if mark.target is None or value is not mark.target)
        if not mark.static and (slot := next(changed, None) or at_import.deleted()):
            self._refuse(Cause.GLOBAL_SET_BEFORE_INIT.of(name=slot, init=mark.name))
        roots = [os.path.realpath(self._request.root)]
        directory = surroundings.place(roots)
        self.report |= {
            "moved": surroundings.moved(),
            "directory": directory,
            "assigned": surroundings.digests(surroundings.assigned(), roots),
        }
        if directory.startswith(os.sep):
            self._refuse(Cause.OUTSIDE_PROJECT.of(directory=directory, init=mark.name))
        if "<locals>" in mark.function.__qualname__ and mark.function.__closure__:
            self._refuse(Cause.INIT_IN_CLOSURE.of(init=mark.name))

    def _stored(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Make a state, and write it with what else making it has changed, where the request wants it stored."""
        from tidalctl.compiler.side_effects.effects import EffectsWatch
        from tidalctl.compiler.snapshot.writer import NotStored, SnapshotWriter

        watch = EffectsWatch(self._request.root, mark)
        self.report |= {"init": mark.name, "settings": watch.settings}
        with watch:
            state = self._timed(mark, arguments, keywords)
        if cause := watch.cause(mark.name):
            self._refuse(cause)
        if "cause" in self.report or not self._request.store:
            return state
        ambient = self._ambient(watch.before, watch.after, watch.seeded)
        effects = watch.effects(ambient.kept)
        self.report |= {"generators": ambient.generators, "drawn": ambient.drawn}
        self.report["later_calls"] = _later_calls(mark, watch.keeps_of(state))
        writer = SnapshotWriter(self._request)
        try:
            if kind := watch.copied(state):
                raise NotStored(Cause.COPIED_FROM_GLOBAL, kind=kind)
            writer.write(state, effects)
        except NotStored as refused:
            self._refuse(refused.reason)
        except OSError as error:
            self.error = error  # the function around this call may swallow it
            raise
        self._watched = (watch.globals, watch.globals.digests(effects.slots))
        self.report |= writer.report
        return state

    def _refuse(self, reason: Reason) -> None:
        """Note why there is no snapshot, unless something was noted before."""
        self.report.setdefault("cause", reason)

    def _timed(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        began = time.perf_counter()
        state = mark.function(*arguments, **keywords)
        self.report.setdefault("init_s", time.perf_counter() - began)
        return state

    def _ambient(self, before: dict[str, Any], after: dict[str, Any], seeded: set[str]) -> Ambient:
        """Of what making the state left otherwise than it was `before`: what a restore sets, and must find for that to be right."""
        before = begun(before, after, seeded)
        left = changed(before, after)
        left |= {name: after[name] for name in seeded if name in after}  # as it was before, maybe, and by chance
        advanced = [name for name in GENERATORS if name in before and name in left and name not in seeded]
        began = ambient_digests({name: before[name] for name in advanced})
        alike = {name: digest for name, digest in began.items() if digest == self._request.generators.get(name)}
        # one that init seeds as it was before is unchanged, in the trace as here
        traced = {name: self._request.generators.get(name) for name in seeded} | self._request.ambient
        known = {name for name, digest in ambient_digests(left).items() if digest == traced.get(name)}
        kept = {name: value for name, value in left.items() if name in known}
        # one that began otherwise in the trace and ended alike was seeded by init, in a way that nobody saw
        drawn = tuple(name for name in advanced if name not in alike and name not in kept)
        return Ambient(kept, alike, drawn)

    def _note_state(self, mark: Init, state: Any) -> None:
        """The digests of what the first call for an event built, for the compiler to compare."""
        if self._event_index in self.report["states"] or self.report.get("init", mark.name) != mark.name:
            return
        from tidalctl.artifacts.state.skeleton import skeleton_digest
        from tidalctl.compiler.snapshot.structure import write_outline

        if self._watched is not None:
            project, left = self._watched
            now = project.digests(left)
            if other := next((slot for slot in left if now[slot] != left[slot]), None):
                self.report.setdefault("globals_differ", str(other))
        if "skeleton" not in self.report:
            self.report["skeleton"] = skeleton_digest(state)
            if self._request.outline:
                write_outline(self._request.outline, state)
        self.report["states"][self._event_index] = _weight_digests(state)


def _later_calls(mark: Init, keeps_of_state: bool) -> LaterCalls:
    """How calls after the first one in a process are answered: see manifest.Guard."""
    if hasattr(mark.function, "cache_info"):
        return "same"
    return "run_init" if keeps_of_state else "fresh"


def _weight_digests(state: Any) -> dict[str, str]:
    from tidalctl.artifacts.state.storages import digest_of, storage_names

    return {names[0]: digest_of(storage) for names, _, storage in storage_names(state).values()}
