"""Where objects lie inside globals, in steps that lead to them again in another process."""

import types
from collections.abc import Callable, Iterator
from typing import Any

from tidalctl.artifacts.skeleton import Place

STEPS = 6  # to a layer of a layer of a module


def within(tops: dict[Place, Any], is_atom: Callable[[Any], bool]) -> dict[int, Place]:
    """The objects in these, and in what they hold, by identity; each by the shortest way. Not those that are alike in any copy."""
    found: dict[int, Place] = {}
    level = tops
    for _ in range(STEPS + 1):
        below: dict[Place, Any] = {}
        for place, value in level.items():
            if found.setdefault(id(value), place) is place:
                below |= {(*place, step): part for step, part in _parts(value) if not (is_atom(part) or id(part) in found)}
        level = below
    return found


def parts_within(value: Any, is_atom: Callable[[Any], bool]) -> list[Any]:
    """What an object holds, down to some steps, each once; not itself."""
    found: dict[int, Any] = {}
    level = [value]
    for _ in range(STEPS):
        below = [part for one in level for _, part in _parts(one) if not is_atom(part)]
        level = [part for part in {id(part): part for part in below}.values() if id(part) not in found and part is not value]
        found |= {id(part): part for part in level}
    return list(found.values())


def _parts(value: Any) -> Iterator[tuple[tuple[str, Any], Any]]:
    if isinstance(value, dict):
        yield from ((("item", key), part) for key, part in list(value.items()) if isinstance(key, str | int))
    elif isinstance(value, list):
        yield from ((("item", index), part) for index, part in enumerate(value))
    if isinstance(attributes := getattr(value, "__dict__", None), dict) and not isinstance(value, types.ModuleType):
        yield from ((("attribute", name), part) for name, part in list(attributes.items()))
