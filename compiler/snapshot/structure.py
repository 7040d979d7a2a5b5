"""A state's structure: what Python code can see in it, object by object, whatever the objects' own pickling makes of them.

An object's parts are the items of a container, the attributes in `__dict__` and `__slots__`, and what a function carries besides its
code. Of objects whose class is written in C, and which have no such parts, only the types are compared. Whether two paths lead to one
object, or to two that are alike, makes no difference.
"""

import collections
import datetime
import decimal
import functools
import hashlib
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

import msgspec
import torch

from tidalctl.artifacts.state.attributes import attributes_of
from tidalctl.artifacts.state.readable_paths import item, readable
from tidalctl.artifacts.state.skeleton import skeleton_digest
from tidalctl.artifacts.state.storages import digest_of, storage_of

_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes, type(...)))
_BASES = (bool, int, float, complex, str, bytes, bytearray)
_VALUES = (PurePath, re.Pattern, range, slice, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta, torch.device)
_NAMED = (type, types.ModuleType)  # each is there once
_SETS = (set, frozenset)
_CONTAINERS = (dict, list, tuple, collections.deque, *_SETS)
_ABSENT = object()
# what a wrapper tells of what it wraps, an address, and whether a warning was given: a restored object does without
_NO_CONTENT = frozenset((*functools.WRAPPER_ASSIGNMENTS, "__wrapped__", "_cdata", "_warned_capturable_if_run_uncaptured"))

Step = tuple[str, Any]  # to a part: ("item", key) or ("attribute", name)
_MEMBER: Step = ("member", None)  # to a key, or to an item of a set: a path does not show it
Link = tuple["Link", Step] | None  # a path, from its end


def first_loss(original: Any, restored: Any, counterpart: Callable[[Any], Any], name: str = "state") -> str | None:
    """Return the path to the first object that was restored otherwise than it was, and what differs, or None.

    `counterpart` gives what an object was restored as, and None for one that was not stored as it is: it tells which item of a set
    is which.
    """
    compared: dict[tuple[int, int], Any] = {}  # with the objects, so that no others get their identities
    stack: list[tuple[Link, Any, Any]] = [(None, original, restored)]
    while stack:
        link, one, other = stack.pop()
        if (id(one), id(other)) in compared:
            continue
        compared[id(one), id(other)] = one, other
        if what := _difference(one, other):
            return f"{_path(link, name)}{what}"
        pairs = [
            (step, part, same)
            for (step, part), (_, same) in zip(_items(one), _items(other), strict=True)
            if part is not same and not (type(part) in _PLAIN and _same_plain(part, same))
        ]
        again = _attributes(other)
        pairs += [(("attribute", key), part, again[key]) for key, part in _attributes(one).items() if key in again]
        if isinstance(one, _SETS):
            pairs += [(_MEMBER, member, same) for member in one if (same := counterpart(member)) is not None]
        stack += [((link, step), part, same) for step, part, same in reversed(pairs) if part is not same]
    return None


def write_outline(path: str, state: Any) -> None:
    """Write the outline of a state, to be compared with that of another process."""
    with open(path, "wb") as file:
        file.write(msgspec.json.encode(list(outline_of(state))))


def outline_of(state: Any) -> Iterator[tuple[str, str]]:
    """Yield the path to each object in a state, with a digest of what it is apart from its parts; the same in every process.

    Objects that pickle in a way of their own come once more in the end, with a digest of their pickle.
    """
    seen: dict[int, Any] = {}
    own_ways: list[tuple[str, Any]] = []
    stack: list[tuple[Link, Any]] = [(None, state)]
    while stack:
        link, value = stack.pop()
        path = _path(link, "state")
        yield path, hashlib.sha256(_summary(value).encode()).hexdigest()[:16]
        if type(value) in _PLAIN or id(value) in seen:
            continue
        seen[id(value)] = value
        parts = [*_items(value), *((("attribute", name), part) for name, part in sorted(_attributes(value).items()))]
        if isinstance(value, _SETS):
            parts += [(_MEMBER, member) for member in value]
        stack += [((link, step), part) for step, part in reversed(parts)]
        kind: Any = type(value)
        if kind.__reduce_ex__ is not object.__reduce_ex__ or kind.__reduce__ is not object.__reduce__:
            own_ways.append((path, value))
    for path, value in own_ways:
        yield path, skeleton_digest(value)


def _items(value: Any) -> Iterator[tuple[Step, Any]]:
    """Yield what a container holds, by the steps to it; not the items of a set, which has no order."""
    if isinstance(value, dict):
        for key, part in dict.items(value):
            yield _MEMBER, key
            yield ("item", key), part
    elif isinstance(value, list | tuple | collections.deque):
        yield from ((("item", number), part) for number, part in enumerate(value))
    elif _array(value) and value.dtype.kind == "O":
        yield from ((("item", number), part) for number, part in enumerate(value.ravel()))


def _attributes(value: Any) -> dict[str, Any]:
    if isinstance(value, (*_NAMED, *_VALUES)) or type(value) in _PLAIN:
        return {}
    if isinstance(value, types.FunctionType):
        found = {"__defaults__": value.__defaults__, "__kwdefaults__": value.__kwdefaults__, **vars(value)}
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                found[f"<{name}>"] = cell.cell_contents
            except ValueError:  # nothing is assigned to the variable yet
                continue
        return found
    if isinstance(value, types.BuiltinFunctionType):
        return {} if isinstance(value.__self__, types.ModuleType) else {"__self__": value.__self__}
    if _array(value) and type(value).__name__ == "memmap":
        return {}  # it comes back as an array like any other
    return {name: part for name, part in attributes_of(value).items() if name not in _NO_CONTENT}


def _difference(one: Any, other: Any) -> str | None:
    """Return what differs between two objects apart from their parts, in words that go on after the path, or None."""
    if one is other:
        return None
    if type(one) is not type(other):
        return f": a {_kind(one)}, and a {_kind(other)} when it is restored"
    if isinstance(one, _NAMED):
        return ": another one of this name when it is restored"
    if isinstance(one, _CONTAINERS) and len(one) != len(other):
        return f": its length is {len(one)}, and {len(other)} when it is restored"
    if isinstance(one, _SETS) and {x for x in one if type(x) in _PLAIN} != {x for x in other if type(x) in _PLAIN}:
        return ": other items when it is restored"
    if not _same_content(one, other):
        return ": another value when it is restored"
    ones, others = _attributes(one), _attributes(other)
    for name in sorted(ones.keys() ^ others.keys()):
        held = {**ones, **others}[name]
        default = next((vars(base)[name] for base in type(one).__mro__ if name in vars(base)), _ABSENT)
        if held is not default and not (type(held) in _PLAIN and _same_plain(held, default)):  # else the class gives the same
            return f".{name}: {'lost' if name in ones else 'set anew'} when it is restored"
    return None


def _same_content(one: Any, other: Any) -> bool:
    """Whether two objects of one type are alike in what they hold besides items and attributes."""
    if isinstance(one, _BASES):
        return _same_plain(one, other)
    if isinstance(one, _VALUES):
        return bool(one == other) or repr(one) == repr(other)  # the latter of what is not equal to itself
    if isinstance(one, types.FunctionType):
        return one.__code__ == other.__code__
    if isinstance(one, types.BuiltinFunctionType):
        return one.__qualname__ == other.__qualname__
    if isinstance(one, torch.Tensor):
        return _same_tensor(one, other)
    if _array(one):
        same = one.dtype == other.dtype and one.shape == other.shape
        return same and (one.dtype.hasobject or one.tobytes() == other.tobytes())
    return True


def _same_plain(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    base: Any = next((base for base in _BASES if isinstance(one, base)), object)
    if base in (float, complex):  # of which one may not be equal to itself, and two zeros are
        return bool(base.__repr__(one) == base.__repr__(other))
    return one is other or base.__eq__(one, other) is True


def _same_tensor(one: torch.Tensor, other: torch.Tensor) -> bool:
    if _geometry(one) != _geometry(other):
        return False
    mine, restored = storage_of(one), storage_of(other)
    if mine is None or restored is None:
        return mine is restored
    return mine._cdata == restored._cdata or digest_of(mine) == digest_of(restored)


def _geometry(tensor: torch.Tensor) -> tuple[Any, ...]:
    dense = storage_of(tensor) is not None
    place = (tensor.stride(), tensor.storage_offset()) if dense else ()
    return tensor.dtype, tensor.shape, tensor.layout, tensor.device, tensor.requires_grad, *place


def _array(value: Any) -> bool:
    """Whether a value is an array or a number of NumPy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray | numpy.generic)


def _summary(value: Any) -> str:
    """Return what an object is apart from its parts, as a text that is the same in every process."""
    kind = _kind(value)
    if isinstance(value, (*_NAMED, types.FunctionType, types.BuiltinFunctionType)):
        return f"{kind} {getattr(value, '__module__', '')} {getattr(value, '__qualname__', value.__name__)}"
    if isinstance(value, _VALUES) or type(value) in _PLAIN:
        return f"{kind} {value!r}"
    if isinstance(value, _BASES):
        return f"{kind} {next(base for base in _BASES if isinstance(value, base)).__repr__(value)}"
    if isinstance(value, torch.Tensor):
        return f"{kind} {_geometry(value)}"
    if _array(value):
        return f"{kind} {value.dtype} {value.shape} {b'' if value.dtype.hasobject else value.tobytes()!r}"
    return f"{kind} {len(value) if isinstance(value, _CONTAINERS) else ''}"


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _path(link: Link, name: str) -> str:
    steps: list[str] = []
    while link is not None:
        link, (kind, key) = link
        steps.append(item(key) if kind == "item" else f".{key}" if kind == "attribute" else "")
    return readable("".join([name, *reversed(steps)]))
