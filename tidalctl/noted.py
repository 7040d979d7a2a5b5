"""Texts and numbers of a request that note when the program may do another thing for another of them.

Comparing, searching, looking up, rounding, and staying in the state are noted. Making other texts of a text (joining, formatting,
opening a file) is not, nor what C code does with its characters; arithmetic gives noted numbers again, so that comparing what was
computed counts for all that it was computed from.
"""

import math
import sys
from collections.abc import Callable, Iterable
from typing import Any


class NotedMath:
    """A context in which functions of `math` tell of the numbers that they are given, which they read past Python's methods."""

    def __enter__(self) -> "NotedMath":
        self._originals = {name: value for name, value in vars(math).items() if callable(value)}
        for name, original in self._originals.items():
            setattr(math, name, _asked(original))
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for name, original in self._originals.items():
            setattr(math, name, original)


def _asked(original: Any) -> Any:
    def function(*arguments: Any, **keywords: Any) -> Any:
        for value in arguments:
            if isinstance(value, NotedInt | NotedFloat):
                _tell(value)
        return original(*arguments, **keywords)

    return function


_PATHS = ("<frozen posixpath>", "<frozen genericpath>", "<frozen os>")  # which look for slashes only

Note = Callable[[], None]


class NotedText(str):
    """A text that notes what is done with it."""

    notes: tuple[Note, ...]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        _tell(self)
        return str, (str.__str__(self),)

    def __format__(self, how: str) -> str:
        if how:  # which may cut it, or fill it up
            _tell(self)
        return str.__format__(self, how)


class NotedInt(int):
    """A whole number that notes what is done with it, and with what is computed from it."""

    notes: tuple[Note, ...]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        _tell(self)
        return int, (int.__add__(self, 0),)


class NotedFloat(float):
    """As NotedInt."""

    notes: tuple[Note, ...]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        _tell(self)
        return float, (float.__add__(self, 0.0),)


_KINDS: dict[type, Any] = {str: NotedText, int: NotedInt, float: NotedFloat}


def noted(value: Any, notes: Iterable[Note]) -> Any:
    """The value as one that tells `notes`; any but texts and numbers as it is."""
    kind = _KINDS.get(type(value))
    if kind is None:
        return value
    made = kind(value)
    made.notes = tuple(notes)
    return made


def noted_numbers(value: Any, note: Callable[[str], None], key: str = "") -> Any:
    """A JSON value in which each number tells `note` the key at the top under which it stands."""
    if isinstance(value, dict):
        return {name: noted_numbers(item, note, key or name) for name, item in value.items()}
    if isinstance(value, list):
        return [noted_numbers(item, note, key) for item in value]
    return noted(value, (lambda: note(key),)) if type(value) in (int, float) else value


def _tell(value: Any) -> None:
    for note in value.notes:
        note()


def _telling(original: Any) -> Any:
    def method(self: Any, *arguments: Any) -> Any:
        if sys._getframe(1).f_code.co_filename not in _PATHS:
            for value in (self, *arguments):
                if isinstance(value, NotedText | NotedInt | NotedFloat):
                    _tell(value)
        return original(self, *arguments)

    method.__name__ = original.__name__
    return method


def _computing(original: Any) -> Any:
    def method(self: Any, *arguments: Any) -> Any:
        result = original(self, *arguments)
        others = (note for argument in arguments for note in getattr(argument, "notes", ()))
        return noted(result, dict.fromkeys((*self.notes, *others)))

    method.__name__ = original.__name__
    return method


def _itself(self: Any, *memo: Any) -> Any:
    return self


_COMPARES = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__bool__")
_SEARCHES: tuple[str, ...] = (
    "__contains__",
    "__len__",
    "__iter__",
    "startswith",
    "endswith",
    "find",
    "index",
    "count",
    "isdigit",
    "isidentifier",
)
_SEARCHES += (
    "lower",
    "upper",
    "casefold",
    "title",
    "capitalize",
    "swapcase",
    "split",
    "rsplit",
    "partition",
    "rpartition",
    "encode",
)
_SEARCHES += ("strip", "lstrip", "rstrip", "replace", "removeprefix", "removesuffix", "splitlines", "translate", "__getitem__")
_SEARCHES += (
    "rfind",
    "rindex",
    "isalpha",
    "isalnum",
    "isnumeric",
    "isdecimal",
    "islower",
    "isupper",
    "isspace",
    "istitle",
    "isascii",
)
_SEARCHES += ("isprintable", "zfill", "ljust", "rjust", "center", "expandtabs", "format", "format_map", "__mod__", "__mul__")
_ROUNDS: tuple[str, ...] = (
    "__int__",
    "__float__",
    "__round__",
    "__trunc__",
    "__floor__",
    "__ceil__",
    "is_integer",
    "bit_length",
)
_ROUNDS += tuple(f"__{side}{name}__" for side in ("", "r") for name in ("floordiv", "mod", "divmod", "pow", "and", "or", "xor"))
_ARITHMETIC: tuple[str, ...] = tuple(f"__{side}{name}__" for side in ("", "r") for name in ("add", "sub", "mul", "truediv"))
_ARITHMETIC += ("__neg__", "__pos__", "__abs__")

for _kind, _class in _KINDS.items():
    for _name in (*_COMPARES, *(_SEARCHES if _kind is str else _ROUNDS)):
        if hasattr(_kind, _name):
            setattr(_class, _name, _telling(getattr(_kind, _name)))
    _class.__copy__ = _class.__deepcopy__ = _itself  # or a copy of settings would count as part of the state
    for _name in () if _kind is str else _ARITHMETIC:
        setattr(_class, _name, _computing(getattr(_kind, _name)))
