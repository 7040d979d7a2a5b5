"""What a function carries from one call to the next: defaults that it may change, and variables of the function that made it."""

import contextlib
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

CACHE = type(functools.lru_cache(lambda: None))


def carried_over(value: Any, owned: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
    """By a name that is its own. Of a function and those inside it: what decorators have wrapped, what its variables hold.

    Variables only where the function's file is `owned`: a library's are caches of its own.
    """
    for depth, function in enumerate(_functions_within(value)):
        inner = f"inner {depth} " if depth else ""
        for place, default in enumerate(function.__defaults__ or ()):
            yield f"{inner}default {place}", default
        for name, default in (function.__kwdefaults__ or {}).items():
            yield f"{inner}default {name}", default
        if owned(function.__code__.co_filename):
            for name, content in _variables(function):
                yield f"{inner}variable {name}", content


def _functions_within(value: Any) -> Iterator[types.FunctionType]:
    """A function and those inside it, each once, in an order that is always the same."""
    waiting, seen = [value], set()
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, types.FunctionType):
            yield found
            waiting += [content for _, content in _variables(found) if isinstance(content, types.FunctionType | CACHE)]
        if isinstance(found, property):
            waiting += [found.fget, found.fset, found.fdel]
        elif isinstance(found, classmethod | staticmethod):
            waiting.append(found.__func__)
        elif isinstance(found, types.FunctionType | CACHE):
            waiting.append(vars(found).get("__wrapped__"))


def _variables(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Of the functions around this one, those that it uses and that are bound."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not bound yet
            yield name, cell.cell_contents
