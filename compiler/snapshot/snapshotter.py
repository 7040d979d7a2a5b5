"""Answers calls of init as the plain function's would be, and writes the states that are wanted to disk."""

import os
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from tidalctl.artifacts.bundle.manifest import LaterCalls, state_prefix
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.compiler.snapshot.records import SnapshotReport, SnapshotRequest, StateReport, StateRequest, StoredContent
from tidalctl.function.event_probe import arguments_digest
from tidalctl.function.init_mark import Init
from tidalctl.function.process_settings import GENERATORS, FirstGenerators, ambient_digests, begun, changed
from tidalctl.function.working_environment import Surroundings, environ_changes

if TYPE_CHECKING:
    from tidalctl.artifacts.state.slots import Slot
    from tidalctl.compiler.side_effects.effects import Effects
    from tidalctl.compiler.side_effects.project_globals import ProjectGlobals
    from tidalctl.compiler.snapshot.writer import StoredContents


class Ambient(NamedTuple):
    """What a restore sets, and what it must find: digests of generators, and those that nobody may have seeded (see Guard)."""

    kept: dict[str, Any]
    generators: dict[str, str]
    drawn: tuple[str, ...]


class Snapshotter:
    """Answers calls of init as it would itself. The first call for each wanted state has it written."""

    def __init__(self, request: SnapshotRequest) -> None:
        self._request = request
        self.outputs: tuple[str, ...] = ()
        self.error: OSError | None = None
        self._reports: dict[int, dict[str, Any]] = {}  # by state
        self._states: dict[int, dict[str, str]] = {}  # by event
        self._init_s = 0.0
        self._wanted = {state.number: state for state in request.states if state.number in request.wanted}
        self._asked_for: list[int] = []  # states, in order
        self._before: ProjectGlobals | None = None  # as at import, or as this event found them
        self._surroundings = self._at_start = Surroundings()
        self._added: set[Slot] = set()  # dictionaries that states which are stored have added items to
        self._inside = False
        self._event: Any = None
        self._event_index = 0
        self._generators = FirstGenerators()
        self._watched: tuple[ProjectGlobals, dict[Slot, str]] | None = None
        self._contents = contents_of(request.stored)
        self._noted: set[tuple[int, int]] = set()  # states and events
        # numbers and inits of the states that are stored, and what they hold
        self._held: list[tuple[int, str, dict[tuple[str, int], Any]]] = []

    def report(self) -> SnapshotReport:
        """Return what there is to tell, once all events are answered."""
        further = {number: StateReport(**found) for number, found in self._reports.items() if number}
        main = self._reports.get(0, {})
        return SnapshotReport(**main, outputs=self.outputs, further=further, states=self._states, init_s=self._init_s)

    def begin(self, index: int, event: Any = None) -> None:
        """Turn to an event, which finds the random generators as the first one did."""
        self._event_index, self._event = index, event
        if "torch" in sys.modules:
            self._generators.put_back()
        if index:
            self._look_from_here()

    def imported(self) -> None:
        """The function's module is there. What it changes from now on and before it calls init, init may look at."""
        self._look_from_here()

    def _look_from_here(self) -> None:
        if self._wanted:
            from tidalctl.compiler.side_effects.project_globals import ProjectGlobals

            self._before, self._surroundings = ProjectGlobals(self._request.root), Surroundings()

    def answer(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        number = None if self._inside else self._number(mark, arguments, keywords)
        if number is None:  # another one, or a part of the init that calls it
            return mark.function(*arguments, **keywords)
        if number not in self._asked_for:
            self._asked_for.append(number)
        wanted = self._wanted.pop(number, None)
        self._inside = True
        try:
            if wanted is None:
                state = self._timed(mark, arguments, keywords, number)
            else:
                state = self._looked_at(wanted, mark, arguments, keywords)
        finally:
            self._inside = False
        self._note_state(number, mark, state)
        return state

    def _number(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> int | None:
        """Return the number of the state that a call gives, or None where it is none of the bundle's."""
        states = [state for state in self._request.states if state.init in ("", mark.name)]
        digest = arguments_digest(self._event, arguments, keywords, [self._request.root]) if states else None
        numbers = {state.arguments: state.number for state in reversed(states)}
        return numbers.get(digest or "", numbers.get(""))

    def _looked_at(self, wanted: StateRequest, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Make a state that is wanted, and note what the function has set before and what making it has changed."""
        report = self._reports.setdefault(wanted.number, {})
        report["before"] = tuple(number for number in self._asked_for if number != wanted.number)
        before = self._before
        # of the object that init fills a start compares what it holds
        changed = [s for s, v in before.changed().items() if mark.target is None or v is not mark.target] if before else []
        others = {slot for slot in changed if slot in self._added}  # dictionaries with items of other states
        if before is not None:
            self._look_around(report, mark, next((slot for slot in changed if slot not in others), None) or before.deleted())
        environ = dict(os.environ)
        state = self._stored(wanted, report, mark, arguments, keywords)
        self._surroundings.accept(environ_changes(environ, os.environ))
        filled = {(items.module, items.owner, items.name) for items in report.get("added", ())}
        if not mark.static and (slot := next((slot for slot in others if slot not in filled), None)):
            _refuse(report, Cause.GLOBAL_SET_BEFORE_INIT.of(name=slot, init=mark.name))
        return state

    def _look_around(self, report: dict[str, Any], mark: Init, changed: "Slot | None") -> None:
        """Note what the function has set since its import, or for this event, before it calls an init. `changed` is a global of it."""
        if not mark.static and changed is not None:
            _refuse(report, Cause.GLOBAL_SET_BEFORE_INIT.of(name=changed, init=mark.name))
        roots, surroundings = [os.path.realpath(self._request.root)], self._surroundings
        directory = surroundings.place(roots)
        report |= {
            "moved": surroundings.moved(),
            "directory": directory,
            "assigned": surroundings.digests(surroundings.assigned(), roots),
            "environ_at_init": self._at_start.digests(self._at_start.assigned(), roots),
        }
        if directory.startswith(os.sep):
            _refuse(report, Cause.OUTSIDE_PROJECT.of(directory=directory, init=mark.name))
        if "<locals>" in mark.function.__qualname__ and mark.function.__closure__:
            _refuse(report, Cause.INIT_IN_CLOSURE.of(init=mark.name))

    def _stored(
        self,
        wanted: StateRequest,
        report: dict[str, Any],
        mark: Init,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> Any:
        """Make a state, and write it with what else making it has changed, where the request wants it stored."""
        from tidalctl.compiler.side_effects.effects import EffectsWatch
        from tidalctl.compiler.snapshot.writer import NotStored, SnapshotWriter

        watch = EffectsWatch(self._request.root, mark)
        report |= {"init": mark.name, "settings": watch.settings}
        with watch:
            state = self._timed(mark, arguments, keywords, wanted.number)
        if cause := watch.cause(mark.name):
            _refuse(report, cause)
        if "cause" in report or not wanted.store:
            return state
        ambient = _ambient(wanted, watch.before, watch.after, watch.seeded)
        effects = watch.effects(ambient.kept)
        report |= {"generators": ambient.generators, "drawn": ambient.drawn}
        report["later_calls"] = _later_calls(mark, watch.keeps_of(state))
        writer = SnapshotWriter(self._request, wanted.number, mark.name, self._contents)
        try:
            if kind := watch.copied(state):
                raise NotStored(Cause.COPIED_FROM_GLOBAL, kind=kind)
            report["leaves_more"] = effects.leaves_more
            if self._request.states[1:]:
                report["after"] = self._refuse_shared(wanted, mark.name, effects, state)
            writer.write(state, effects)
        except NotStored as refused:
            writer.clear()
            _refuse(report, refused.reason)
        except OSError as error:
            self.error = error  # the function around this call may swallow it
            raise
        self._added |= effects.added.keys()
        report["added"] = tuple(watch.added_items())
        if wanted.number == 0:
            self._watched = (watch.globals, watch.globals.digests(effects.slots))
        report |= writer.report
        return state

    def _refuse_shared(self, wanted: StateRequest, init: str, effects: "Effects", state: Any) -> tuple[int, ...]:
        """Return the numbers of the stored states of which this one holds objects that a start finds in globals.

        Raises NotStored where it holds others of theirs.
        """
        from tidalctl.compiler.snapshot.writer import NotStored

        held, found = effects.held_with(state)
        for _, other, known in self._held:
            if shared := next((key for key in held if key in known), None):
                raise NotStored(Cause.SHARED_BY_STATES, kind=type(held[shared]).__qualname__, other=other)
        after = tuple(number for number, _, known in self._held if not found.isdisjoint(known))
        self._held.append((wanted.number, init, held))
        return after

    def _timed(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any], number: int) -> Any:
        began = time.perf_counter()
        state = mark.function(*arguments, **keywords)
        if number == 0 and not self._init_s:
            self._init_s = time.perf_counter() - began
        return state

    def _note_state(self, number: int, mark: Init, state: Any) -> None:
        """Note the digests of what the first call for a state in an event built, for the compiler to compare."""
        from tidalctl.artifacts.state.skeleton import skeleton_digest
        from tidalctl.compiler.snapshot.structure import write_outline

        noted, report = self._states.setdefault(self._event_index, {}), self._reports.setdefault(number, {})
        if (number, self._event_index) in self._noted:
            return
        self._noted.add((number, self._event_index))
        if number == 0 and self._watched is not None:
            project, left = self._watched
            now = project.digests(left)
            if other := next((slot for slot in left if now[slot] != left[slot]), None):
                report.setdefault("globals_differ", str(other))
        if "skeleton" not in report:
            report["skeleton"] = skeleton_digest(state)
            if self._request.outline and number == 0:
                write_outline(self._request.outline, state)
        prefix = state_prefix(number, mark.name)
        noted |= {prefix + name: digest for name, digest in _weight_digests(state).items()}


def contents_of(stored: Iterable[StoredContent]) -> "StoredContents":
    """Return stored weights' names by what tells their contents: sha256, device and kept address."""
    found: StoredContents = {}
    for one in stored:
        found.setdefault((one.digest, one.device, one.address), []).append(one.name)
    return found


def _refuse(report: dict[str, Any], reason: Reason) -> None:
    """Note why there is no snapshot, unless something was noted before."""
    report.setdefault("cause", reason)


def _ambient(wanted: StateRequest, before: dict[str, Any], after: dict[str, Any], seeded: set[str]) -> Ambient:
    """Of what making the state left otherwise than it was `before`: what a restore sets, and must find for that to be right."""
    before = begun(before, after, seeded)
    left = changed(before, after)
    left |= {name: after[name] for name in seeded if name in after}  # as it was before, maybe, and by chance
    advanced = [name for name in GENERATORS if name in before and name in left and name not in seeded]
    began = ambient_digests({name: before[name] for name in advanced})
    alike = {name: digest for name, digest in began.items() if digest == wanted.generators.get(name)}
    # one that init seeds as it was before is unchanged, in the trace as here
    traced = {name: wanted.generators.get(name) for name in seeded} | wanted.ambient
    known = {name for name, digest in ambient_digests(left).items() if digest == traced.get(name)}
    kept = {name: value for name, value in left.items() if name in known}
    # one that began otherwise in the trace and ended alike was seeded by init, in a way that nobody saw
    drawn = tuple(name for name in advanced if name not in alike and name not in kept)
    return Ambient(kept, alike, drawn)


def _later_calls(mark: Init, keeps_of_state: bool) -> LaterCalls:
    """How calls after the first one in a process are answered: see manifest.Guard."""
    if hasattr(mark.function, "cache_info"):
        return "same"
    return "run_init" if keeps_of_state else "fresh"


def _weight_digests(state: Any) -> dict[str, str]:
    from tidalctl.artifacts.state.storages import digest_of, storage_names

    return {names[0]: digest_of(storage) for names, _, storage in storage_names(state).values()}
