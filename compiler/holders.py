"""Whether something that no snapshot holds has an object which init changed in place: a restore would change another one.

What a filled global holds is made anew, and so is a global that can't be filled (a module, a dict of a class of its own).
"""

import gc
import types
import weakref
from typing import Any

from tidalctl.artifacts.filled import contents
from tidalctl.compiler.memo import reached
from tidalctl.compiler.module_state import Global, ModuleState, is_atom
from tidalctl.compiler.places import parts_within


def held_elsewhere(modules: ModuleState, kept: dict[str, dict[str, Any]], state: Any) -> str:
    """The first such global, dotted; empty where there is none. `kept` are globals that init changed, by module and name."""
    suspects: dict[Global, list[Any]] = {}
    for module, values in kept.items():
        for name, value in values.items():
            same = modules.is_object_of_before((module, name), value) and not isinstance(value, types.MethodType)
            inside = [part for part in parts_within(value, is_atom) if modules.was_inside(part)] if same else []
            if same and contents(value) is None:
                inside.append(value)
                if _weakly_held(value):
                    return f"{module}.{name}"
            if inside:
                suspects[module, name] = inside
    if not suspects:
        return ""
    ours = _known([state, *(value for values in kept.values() for value in values.values())])
    ours.update([*map(id, suspects.values()), *map(id, kept.values()), *modules.dicts()])
    for place, parts in suspects.items():
        others = [other for other in gc.get_referrers(*parts) if not isinstance(other, types.FrameType)]
        if any(id(other) not in ours for other in others):
            return ".".join(place)
    return ""


def _known(stored: list[Any]) -> set[int]:
    """What of a snapshot may hold them: what is stored, what pickling it or looking into it comes by, and the attributes of that."""
    inside = [part for value in stored for part in parts_within(value, is_atom)]
    objects = [*stored, *reached(stored, {}).values(), *inside]
    return {id(value) for value in objects} | {id(value.__dict__) for value in objects if hasattr(value, "__dict__")}


def _weakly_held(value: Any) -> bool:
    return type(value).__weakrefoffset__ > 0 and weakref.getweakrefcount(value) > 0
