"""Explanations of the numbers and paths in a slice as functions of the event, checked against every traced event.

Numbers are looked for among the event's own, those of the JSON files that the event names, and the sizes of tensors read, and among
what two of them give by arithmetic. Where the events can't tell two explanations apart, both are kept, and a run must find them equal.
"""

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tidalctl.artifacts.records import Record

MAX_ATOMS = 24  # of numbers that two-sided arithmetic is tried on


class Atom(Record, frozen=True):
    """A number that the traced events have, one for each: its expression and its values."""

    expression: str
    values: tuple[float | int, ...]

    @property
    def varies(self) -> bool:
        return len({(type(value), value) for value in self.values}) > 1


def explanations(values: Sequence[Any], atoms: Sequence[Atom]) -> list[str]:
    """Every expression over the atoms that gives `values`, type and last bit included; the simplest first."""
    wanted = [(type(value), value) for value in values]
    found = []
    for expression, results in _candidates(atoms):
        if [(type(result), result) for result in results] == wanted:
            found.append(expression)
    return list(dict.fromkeys(found))


def _candidates(atoms: Sequence[Atom]) -> Iterator[tuple[str, list[Any]]]:
    """Over at least one number that differs between the events."""
    varying = [atom for atom in atoms if atom.varies]
    for atom in varying:
        yield atom.expression, list(atom.values)
    for atom in varying:
        for shape, function in _ONE:
            if function in (int, float) and all(type(value) is function for value in atom.values):
                continue
            if (results := _applied(function, atom.values)) is not None:
                yield shape.format(atom.expression), results
    for one, other in itertools.permutations([*varying, *(a for a in atoms if not a.varies)][:MAX_ATOMS], 2):
        if not (one.varies or other.varies):
            continue
        for shape, function in _TWO:
            if (results := _applied(function, one.values, other.values)) is not None:
                yield shape.format(one.expression, other.expression), results


def _applied(function: Callable[..., Any], *columns: Iterable[Any]) -> list[Any] | None:
    try:
        return [function(*row) for row in zip(*columns, strict=True)]
    except (ArithmeticError, ValueError, TypeError):
        return None


_ONE: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("float({})", float),
    ("int({})", int),
    ("-{}", operator.neg),
    ("1 / {}", lambda x: 1 / x),
    ("math.sqrt({})", math.sqrt),
    ("1 / math.sqrt({})", lambda x: 1 / math.sqrt(x)),
    ("1 - {}", lambda x: 1 - x),
    ("2 * {}", lambda x: 2 * x),
    ("{} * {}".replace("{}", "{0}"), lambda x: x * x),
)
_TWO: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("{} / {}", operator.truediv),
    ("float({} // {})", lambda x, y: float(x // y)),  # which an exact quotient does not tell from the one above
    ("{} * {}", operator.mul),
    ("{} + {}", operator.add),
    ("{} - {}", operator.sub),
    ("{} / math.sqrt({})", lambda x, y: x / math.sqrt(y)),
)


def path_parts(paths: Sequence[str], texts: dict[str, tuple[str, ...]]) -> tuple[Any, ...] | None:
    """A path as texts and fields of the event, that gives each event's path; None where there is no such.

    `texts` are the values of the event's fields by key. One field is tried first, the longest before others, and then several.
    """
    if len(set(paths)) == 1 and not any(bounded(paths[0], value) for values in texts.values() for value in values):
        return (paths[0],)
    longest = sorted(texts.items(), key=lambda item: -min(map(len, item[1]), default=0))
    for key, values in longest:
        for before, after in around(paths[0], values[0]):
            if all(path == before + value + after for path, value in zip(paths, values, strict=True)):
                return tuple(part for part in (before, ("event", key), after) if part)
    for key, values in longest:
        if not all(values) or any(value not in path for path, value in zip(paths, values, strict=True)):
            continue
        splits = [path.partition(value) for path, value in zip(paths, values, strict=True)]
        others = {other: rest for other, rest in texts.items() if other != key}
        first = _side([split[0] for split in splits], others)
        last = _side([split[2] for split in splits], others)
        if first is not None and last is not None:
            return (*first, ("event", key), *last)
    return (paths[0],) if len(set(paths)) == 1 else None


def around(path: str, value: str) -> Iterator[tuple[str, str]]:
    """What stands before and after each place at which a path has the value."""
    place = path.find(value) if value else -1
    while place >= 0:
        yield path[:place], path[place + len(value) :]
        place = path.find(value, place + 1)


def bounded(path: str, value: str) -> bool:
    """Whether the value stands in the path by itself, between slashes or before a dot."""
    return any(before[-1:] in ("", "/") and after[:1] in ("", "/", ".") for before, after in around(path, value))


def _side(parts: Sequence[str], texts: dict[str, tuple[str, ...]]) -> tuple[Any, ...] | None:
    if len(set(parts)) == 1:
        return (parts[0],) if parts[0] else ()
    return path_parts(parts, texts)
