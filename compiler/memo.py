"""Whether init gives again what it gave before, because globals that it sets hold it: the same state, its parts, or none of it."""

import datetime
import decimal
import io
import logging
import re
from collections.abc import Sequence
from typing import Any

import torch

from tidalctl.artifacts.skeleton import Place, SkeletonPickler, shallow
from tidalctl.compiler.module_state import is_atom

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

_CONTAINERS = (dict, list, tuple)


class Held:
    """What of a state lies in what init `left` in globals. `shared` are globals that it left alone, by identity."""

    def __init__(self, state: Any, left: Sequence[Any], shared: dict[int, Place]) -> None:
        self._state = state
        self._shared = shared
        self._parts = _parts(state)
        inside = reached(list(left), shared) if left else {}
        self._held = {key: value for key, value in (reached(state, shared) if inside else {}).items() if key in inside}

    def __bool__(self) -> bool:
        return bool(self._held)

    def verdict(self, again: Any) -> str:
        """What a further call gave: the "same" state, its "parts" in a container of their own, a "fresh" one; empty for "neither"."""
        if again is self._state:
            return "same"
        if self._held.keys().isdisjoint(reached(again, self._shared)):
            return "fresh"
        other = _parts(again)
        alike = type(again) is type(self._state) and self._parts and self._parts.keys() == other.keys()
        if alike and all(self._repeated(part, other[key]) for key, part in self._parts.items()):
            return "parts"
        return ""

    def _repeated(self, part: Any, other: Any) -> bool:
        if isinstance(part, str | bytes | int | float | complex | bool):
            return type(part) is type(other) and bool(part == other)
        return part is other


def _parts(state: Any) -> dict[Any, Any]:
    """What a plain container holds, as it is now: the handler may put other things into it."""
    if type(state) not in _CONTAINERS:
        return {}
    return dict(state) if isinstance(state, dict) else dict(enumerate(state))


def copied(state: Any, untouched: list[Any], shared: dict[int, Place]) -> str:
    """The kind of an object that a state holds, and so does a global that init left alone, so deep that no place leads to it."""
    own = reached(state, shared)
    within = reached(untouched, {}) if untouched and own else {}
    return next((type(value).__qualname__ for key, value in own.items() if key in within), "")


def reached(value: Any, shared: dict[int, Place]) -> dict[tuple[str, int], Any]:
    """The objects and the storages that pickling a value comes by, but for those of which it makes no difference which copy it is."""
    visits = _Visits(shared)
    try:
        with shallow():
            visits.dump(value)
    except Exception:  # noqa: BLE001 - whatever an object's own pickling raises: what it came by until then is known
        pass
    return visits.reached


class _Visits(SkeletonPickler):
    """Notes what it pickles. The objects stay alive with it, so that each has an identity of its own."""

    def __init__(self, shared: dict[int, Place]) -> None:
        super().__init__(io.BytesIO(), {}, shared)
        self.reached: dict[tuple[str, int], Any] = {}

    def persistent_id(self, value: Any) -> Any:
        found = super().persistent_id(value)
        if isinstance(value, torch.storage.TypedStorage | torch.UntypedStorage):
            storage = value._untyped_storage if isinstance(value, torch.storage.TypedStorage) else value
            self.reached["storage", storage._cdata] = storage
        elif found is None and not is_atom(value) and not isinstance(value, _CONSTANTS):
            self.reached["object", id(value)] = value
        return found
