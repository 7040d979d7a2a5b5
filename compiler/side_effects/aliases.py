"""Objects that a state shares with globals and class attributes of the project: a restored state must share the same ones."""

import datetime
import decimal
import io
import logging
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from tidalctl.artifacts.state.skeleton import Place, SkeletonPickler, shallow
from tidalctl.compiler.side_effects.project_globals import is_atom

_CONSTANTS = (
    re.Pattern,
    range,
    slice,
    decimal.Decimal,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
    logging.Logger,
)


def object_paths(untouched: Mapping[Place, Any]) -> dict[int, Place]:
    """Return by identity where these objects, and their items and attributes, are found again. Constants are left out."""
    paths: dict[int, Place] = {}
    for place, value in untouched.items():
        paths.setdefault(id(value), place)
    for place, value in untouched.items():
        for step, part in _steps(value):
            if not is_atom(part):
                paths.setdefault(id(part), (*place, step))
    return paths


def _steps(value: Any) -> Iterator[tuple[tuple[str, Any], Any]]:
    if isinstance(value, dict):
        yield from ((("item", key), part) for key, part in list(value.items()) if isinstance(key, str | int))
    elif isinstance(value, list):
        yield from ((("item", index), part) for index, part in enumerate(value))
    if isinstance(attributes := getattr(value, "__dict__", None), dict) and not isinstance(value, types.ModuleType):
        yield from ((("attribute", name), part) for name, part in list(attributes.items()))


def shared_deep_inside(state: Any, untouched: list[Any], paths: dict[int, Place]) -> str | None:
    """Return the kind of an object that lies in a state and so deep in an untouched object that none of `paths` leads to it."""
    own = reachable(state, paths)
    within = reachable(untouched, {}) if untouched and own else {}
    return next((type(value).__qualname__ for key, value in own.items() if key in within), None)


def shared_with_functions(state: Any, held: Iterable[Any], paths: dict[int, Place], filled: dict[int, Place]) -> str | None:
    """Return the kind of an object that lies in a state and in what a function holds, but not by way of what `filled` leads to."""
    values = [value for value in held if not is_atom(value) and id(value) not in paths and id(value) not in filled]
    own = reachable(state, paths) if values else {}
    for value in values:
        shared = own.keys() & reachable(value, paths | filled).keys()
        if shared:
            return type(own[min(shared)]).__qualname__
    return None


def share_an_object(one: Any, other: Any, paths: dict[int, Place]) -> bool:
    """Whether two values hold an object in common, or a storage, other than those that `paths` lead to."""
    return not reachable(one, paths).keys().isdisjoint(reachable(other, paths))


def reachable(value: Any, paths: dict[int, Place]) -> dict[tuple[str, int], Any]:
    """Return every object and storage reachable by pickling `value`, except immutable constants and what `paths` lead to."""
    return reachable_and_found(value, paths)[0]


def reachable_and_found(value: Any, paths: dict[int, Place]) -> tuple[dict[tuple[str, int], Any], set[tuple[str, int]]]:
    """Return what is reachable, and which of the objects that `paths` lead to were met."""
    pickler = _NotingPickler(paths)
    try:
        with shallow():
            pickler.dump(value)
    except Exception:  # noqa: BLE001 - whatever an object's own pickling raises: what was reached until then is known
        pass
    return pickler.reached, pickler.found


def _is_dtype(value: Any) -> bool:
    """Whether a value is a dtype of NumPy, of which there is one for each name."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.dtype)


class _NotingPickler(SkeletonPickler):
    """Notes what it pickles. The objects stay alive with it, so that each has an identity of its own."""

    def __init__(self, paths: dict[int, Place]) -> None:
        super().__init__(io.BytesIO(), {}, paths)
        self._paths = paths
        self.reached: dict[tuple[str, int], Any] = {}
        self.found: set[tuple[str, int]] = set()

    def persistent_id(self, value: Any) -> Any:
        found = super().persistent_id(value)
        if id(value) in self._paths:
            self.found.add(("object", id(value)))
        if isinstance(value, torch.storage.TypedStorage | torch.UntypedStorage):
            storage = value._untyped_storage if isinstance(value, torch.storage.TypedStorage) else value
            self.reached["storage", storage._cdata] = storage
        elif found is None and not is_atom(value) and not isinstance(value, _CONSTANTS) and not _is_dtype(value):
            self.reached["object", id(value)] = value
        return found
