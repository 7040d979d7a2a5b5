"""Side effects of init: what a snapshot keeps of them, and what makes init run in every start."""

import contextlib
import itertools
import os
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tidalctl.artifacts.bundle.manifest import AddedItems
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.records import digest_json
from tidalctl.artifacts.state.contents import contents_of
from tidalctl.artifacts.state.skeleton import Place
from tidalctl.artifacts.state.slots import Slot
from tidalctl.compiler.side_effects.aliases import (
    object_paths,
    reachable,
    reachable_and_found,
    shared_deep_inside,
    shared_with_functions,
)
from tidalctl.compiler.side_effects.project_globals import ProjectGlobals, is_atom
from tidalctl.compiler.side_effects.watches import Threads, noting_imports, noting_seeds
from tidalctl.function.filled_object import TARGET
from tidalctl.function.init_mark import Init
from tidalctl.function.process_settings import GENERATORS, read_ambient, torch_settings


class Effects(NamedTuple):
    """What making a state has set besides it, for a restore to set again."""

    ambient: dict[str, Any]  # process settings
    bound: dict[Slot, Any]
    added: dict[Slot, dict[Any, Any]]  # items that dictionaries in slots have got besides those that they held
    filled: dict[Slot, Any]  # contents of other objects that slots held before and hold still
    modules: Sequence[str]  # the project's, to be imported before the state is there
    paths: dict[int, Place]  # objects that are not made again but found, by identity

    @property
    def slots(self) -> list[Slot]:
        return [*self.bound, *self.added, *self.filled]

    @property
    def values(self) -> list[Any]:
        return [*self.bound.values(), *self.added.values(), *self.filled.values()]

    @property
    def leaves_more(self) -> bool:
        """Whether something was set besides items of dictionaries and random generators, which have conditions of their own."""
        return bool(self.bound or self.filled or self.modules or not set(GENERATORS).issuperset(self.ambient))

    def held_with(self, state: Any) -> tuple[dict[tuple[str, int], Any], set[tuple[str, int]]]:
        """Return the objects and storages in a state and in what was set, and the objects that a start finds by their place.

        See aliases.reachable.
        """
        return reachable_and_found([state, *self.values], self.paths)


class EffectsWatch:
    """Watches what happens while it is entered, which is while the function of `init` runs."""

    def __init__(self, root: str, init: Init) -> None:
        self._init = init
        self.globals = ProjectGlobals(root)
        self.settings = torch_settings()
        self.before = read_ambient()
        self.after: dict[str, Any] = {}
        self.seeded: set[str] = set()
        self._environ = dict(os.environ)
        self._amid = (
            f"what is defined at {init.statements.amid}" if init.statements is not None and init.statements.amid else ""
        )
        self._directory, self._path, self._threads = os.getcwd(), list(sys.path), Threads()
        self._changed: dict[Slot, Any] = {}
        self._untouched: dict[Place, Any] = {}
        self._paths: dict[int, Place] = {}
        self._added: dict[Slot, dict[Any, Any]] = {}
        self._meanwhile = contextlib.ExitStack()

    def __enter__(self) -> "EffectsWatch":
        self._meanwhile.enter_context(noting_imports(self.globals))
        if self._init.statements is not None:
            self._init.statements.defining = self._definitions
        self.seeded = self._meanwhile.enter_context(noting_seeds())
        return self

    def __exit__(self, *_: object) -> None:
        self._meanwhile.close()
        if self._init.statements is not None:
            self._init.statements.defining = None
        self.after = read_ambient()
        changed = self.globals.changed()  # before anything looks into globals: that gives a StringIO a dict of attributes
        self._untouched = self.globals.untouched(changed)
        self._changed = {slot: value for slot, value in changed.items() if not self._is_state(slot, value)}
        for slot, value in self._changed.items():
            before = self.globals.items_before(slot, value)
            if before is not None and all(type(key) in (str, int) for key in value):
                self._added[slot] = dict(itertools.islice(value.items(), len(before), None))
                parts = {(*slot.place, ("item", key)): part for key, part in before.items() if not is_atom(part)}
                self._untouched |= parts
        self._paths = object_paths(self._untouched)
        if self._init.target is not None:
            self._paths[id(self._init.target)] = TARGET

    @contextlib.contextmanager
    def _definitions(self, names: frozenset[tuple[str, str]]) -> Iterator[None]:
        """A context, for imports and definitions among the statements that are init: a start runs them before all the others."""
        own, all_modules, environ = len(self.globals.imported), set(sys.modules), dict(os.environ)
        yield
        new = [*self.globals.imported[own:], *(sys.modules.keys() - all_modules if environ != self._environ else ())]
        self._amid = self._amid or (f"the import of {new[0]}" if new else "")
        self.globals.note_definitions(names)

    def _is_state(self, slot: Slot, value: Any) -> bool:
        """Whether a slot holds the object that init fills, or is bound to a part of the state."""
        if self._init.target is not None and value is self._init.target:
            return True
        statements = self._init.statements
        return statements is not None and not slot.owner and (slot.module, slot.name) in statements.bound

    def cause(self, init: str) -> Reason | None:
        """Return the first effect of `init` that no snapshot holds."""
        if work := self._threads.started(self.globals.owns_file):
            return Cause.THREAD_STARTED.of(init=init, work=work)
        if deleted := self.globals.deleted():
            return Cause.GLOBAL_DELETED.of(init=init, name=deleted)
        if self._amid:
            return Cause.DEFINED_AMID.of(init=init, what=self._amid)
        if sys.path != self._path:
            return Cause.SYS_PATH_CHANGED.of(init=init)
        if os.getcwd() != self._directory:
            return Cause.DIRECTORY_CHANGED.of(init=init)
        for slot, value in self._changed.items():
            if self._in_place(slot, value) and contents_of(value) is None:
                return Cause.GLOBAL_NOT_FILLABLE.of(init=init, name=slot, kind=type(value).__qualname__)
        return None

    def effects(self, ambient: dict[str, Any]) -> Effects:
        """Return what a restore sets again, with the process settings that it sets."""
        in_place = {slot: value for slot, value in self._changed.items() if self._in_place(slot, value)}
        bound = {slot: value for slot, value in self._changed.items() if slot not in in_place}
        paths = self._paths | {id(value): slot.place for slot, value in in_place.items()}
        contents = {slot: contents_of(value) for slot, value in in_place.items() if slot not in self._added}
        return Effects(ambient, bound, self._added, contents, self.globals.imported, paths)

    def copied(self, state: Any) -> str | None:
        """Return the kind of an object that a restored state, or a restored global, would hold a copy of."""
        kept = [state, *self._values()]
        found = shared_deep_inside(kept, list(self._untouched.values()), self._paths)
        if found is None:  # of what a function holds, the global itself is filled in place
            filled = {id(value): slot.place for slot, value in self._changed.items() if self._in_place(slot, value)}
            found = shared_with_functions(kept, self.globals.held_by_functions(), self._paths, filled)
        return found

    def keeps_of(self, state: Any) -> bool:
        """Whether a global or a class attribute that init has set holds the state, or a part of it."""
        if not self._changed:
            return False
        own = reachable(state, self._paths).keys()
        filled = {("object", id(value)) for slot, value in self._changed.items() if self._in_place(slot, value)}
        return not own.isdisjoint(filled) or not own.isdisjoint(reachable(self._values(), self._paths))

    def added_items(self) -> Iterator[AddedItems]:
        """Yield what was added to dictionaries, by digests of keys."""
        for slot, items in self._added.items():
            before = self.globals.items_before(slot, self._changed[slot]) or {}
            yield AddedItems(
                module=slot.module,
                owner=slot.owner,
                name=slot.name,
                keys=tuple(digest_json([key]) for key in items),
                before=digest_json(list(before)),
            )

    def _values(self) -> list[Any]:
        """Return what init has set: of dictionaries that were there, the items that are new."""
        return [self._added.get(slot, value) for slot, value in self._changed.items()]

    def _in_place(self, slot: Slot, value: Any) -> bool:
        """Whether init has changed the object in a slot. A bound method is no object of its own."""
        return self.globals.is_same_object(slot, value) and not isinstance(value, types.MethodType)
