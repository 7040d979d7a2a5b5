"""Which steps of a dynamic program belong together, and which groups are the same up to names, so that one loop can stand for them.

A part is a set of steps that share no value with any other part, but for reads and leaves that nobody writes to. Parts may therefore be
made in any order, unless they draw random numbers.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tidalctl.artifacts.program import Program, ProgramStep
from tidalctl.compiler.script_text import values_in

# a number without leading zeros, which str(int) gives back
_NUMBER = re.compile(r"(?<![0-9])(0|[1-9][0-9]{0,8})(?![0-9])")


@cache
def overload(name: str) -> Any:
    """The operator, as torch knows it here. ValueError where it does not."""
    import torch

    found: Any = torch.ops
    try:
        for part in name.split("."):
            found = getattr(found, part)
        found._schema  # noqa: B018
    except (AttributeError, RuntimeError):
        raise ValueError(f"torch has no operator {name}") from None
    if torch.Tag.inplace_view in found.tags:
        raise ValueError(f"{name} changes the shape of a tensor in place")
    return found


def draws(step: ProgramStep) -> bool:
    import torch

    return torch.Tag.nondeterministic_seeded in overload(step.operator).tags


def bound(step: ProgramStep) -> Iterator[tuple[Any, Any]]:
    """(what the schema says, what was given) for each argument."""
    declared = overload(step.operator)._schema.arguments
    yield from zip(declared, step.arguments, strict=False)
    named = {argument.name: argument for argument in declared}
    for name, given in step.keywords.items():
        if name not in named:
            raise ValueError(f"{step.operator} has no argument {name}")
        yield named[name], given


def written(step: ProgramStep) -> Iterator[int]:
    """The values that a step writes to."""
    for declared, given in bound(step):
        if declared.alias_info is not None and declared.alias_info.is_write:
            yield from values_in(given)


@dataclass(frozen=True)
class Part:
    """Steps, by their place in the program, and the weights that they make."""

    steps: tuple[int, ...]
    results: tuple[str, ...]
    draws: tuple[int, ...]  # those of the steps that draw

    @property
    def start(self) -> int:
        return self.steps[0] if self.steps else -1


class _Sets:
    def __init__(self) -> None:
        self._above: dict[Any, Any] = {}

    def find(self, item: Any) -> Any:
        while (above := self._above.setdefault(item, item)) != item:
            self._above[item] = item = self._above[above]
        return item

    def join(self, items: Iterable[Any]) -> None:
        first, *rest = map(self.find, items)
        for other in rest:
            self._above[self.find(other)] = self.find(first)


def free_values(program: Program) -> set[int]:
    """Reads and leaves that no step writes to, not even through a view, and that are no weight themselves.

    Raises ValueError where a storage could be reached in two ways, since a program does not say whether a write shows in both.
    """
    sources = {*(read.value for read in program.reads), *(leaf.value for leaf in program.leaves)}
    storage = {value: value for value in sources}
    dirty: set[int] = set()
    for step in program.steps:
        given = {value for _, argument in bound(step) for value in values_in(argument)}
        if unknown := given - storage.keys():
            raise ValueError(f"{step.operator} uses value {min(unknown)} before it is made")
        dirty.update(storage[value] for value in written(step))
        # _unsafe_view is a view whose schema says it is none
        unsaid = step.operator == "aten._unsafe_view.default"
        shared = [
            value
            for declared, argument in bound(step)
            if unsaid or declared.alias_info is not None
            for value in values_in(argument)
        ]
        views = unsaid or any(result.alias_info is not None for result in overload(step.operator)._schema.returns)
        for value in step.outputs:
            # a step with several aliased arguments (an out= form) writes to them, so that its outputs are among them
            storage.setdefault(value, storage[shared[0]] if views and shared else value)
    if unknown := set(program.results.values()) - storage.keys():
        raise ValueError(f"value {min(unknown)} is a weight, and never made")
    kept = {storage[value] for value in program.results.values()}  # a handler may write to these
    looks: dict[str, list[Any]] = {}
    for leaf in program.leaves:
        own = leaf.value if leaf.value in dirty | kept else None
        looks.setdefault(leaf.name, []).append((leaf.dtype, leaf.shape, leaf.stride, leaf.offset, own))
    if several := sorted(name for name, views in looks.items() if any(view != views[0] for view in views)):
        raise ValueError(f"{several[0]} is used in two ways")
    kinds = {file.name: file.kind for file in program.files}
    places: dict[tuple[str, str], int] = {}
    for read in program.reads:
        places[read.file, read.key] = places.get((read.file, read.key), 0) + 1
    for read in program.reads:
        if read.value in dirty and kinds.get(read.file) == "torch":  # its tensors may share storages
            dirty.update(other.value for other in program.reads if other.file == read.file)
    for read in program.reads:
        if read.value in dirty | kept and places[read.file, read.key] > 1:
            raise ValueError(f"{read.key} is read twice, and written to or kept")
    return sources - dirty - kept


def parts_of(program: Program) -> list[Part]:
    """The parts, in the order in which they begin."""
    free, sets = free_values(program), _Sets()
    kinds = {file.name: file.kind for file in program.files}
    for read in program.reads:
        if read.value not in free and kinds.get(read.file) == "torch":
            sets.join([("value", read.value), ("file", read.file)])
    for index, step in enumerate(program.steps):
        values = {*step.outputs, *(value for _, given in bound(step) for value in values_in(given))} - free
        sets.join([("step", index), *(("value", value) for value in sorted(values))])
    steps: dict[Any, list[int]] = {}
    results: dict[Any, list[str]] = {}
    for index in range(len(program.steps)):
        steps.setdefault(sets.find(("step", index)), []).append(index)
    for name in sorted(program.results):
        results.setdefault(sets.find(("value", program.results[name])), []).append(name)
    parts = [
        Part(
            steps=tuple(steps.get(root, ())),
            results=tuple(results.get(root, ())),
            draws=tuple(index for index in steps.get(root, ()) if draws(program.steps[index])),
        )
        for root in {**steps, **results}
    ]
    return sorted(parts, key=lambda part: (part.start, part.results))


def merged(parts: Sequence[Part]) -> Part:
    """All of them in the order of the program."""
    return Part(
        steps=tuple(sorted(index for part in parts for index in part.steps)),
        results=tuple(sorted(name for part in parts for name in part.results)),
        draws=tuple(sorted(index for part in parts for index in part.draws)),
    )


def interleaved(parts: Sequence[Part]) -> bool:
    """Whether making one part after the other would change the order of draws."""
    drawn = [index for part in parts for index in part.draws]
    return drawn != sorted(drawn)


@dataclass(frozen=True)
class Family:
    """Rows of names that one loop goes through: `members` in its order. `numbers` run in it, or it goes through the `table`.

    A pattern is the text of one name, cut where the running number stands. In a table it is None where the name differs.
    """

    members: tuple[int, ...]
    patterns: tuple[tuple[str, ...] | None, ...]
    numbers: tuple[int, ...] = ()
    table: tuple[tuple[str, ...], ...] = field(default=())


def _cut(row: Sequence[str]) -> tuple[tuple[tuple[str, ...], ...], tuple[int, ...]]:
    pieces = [_NUMBER.split(text) for text in row]
    return tuple(tuple(piece[::2]) for piece in pieces), tuple(int(number) for piece in pieces for number in piece[1::2])


def running(rows: Sequence[Sequence[str]]) -> Family | None:
    """The rows, in this order, as one template with one running number, or none where all are the same. None where they are not."""
    cuts = [_cut(row) for row in rows]
    if len({texts for texts, _ in cuts}) != 1:
        return None
    columns = list(zip(*(numbers for _, numbers in cuts), strict=True))
    varying = {column for column in columns if len(set(column)) > 1}
    if len(varying) > 1:
        return None
    (column,) = varying or ((),)
    if len(set(column)) != len(column):
        return None
    return Family(members=tuple(range(len(rows))), patterns=_patterns(cuts[0], [c in varying for c in columns]), numbers=column)


def _patterns(
    cut: tuple[tuple[tuple[str, ...], ...], tuple[int, ...]], varies: Sequence[bool]
) -> tuple[tuple[str, ...] | None, ...]:
    texts, numbers = cut
    patterns, position = [], 0
    for pieces in texts:
        pattern = [pieces[0]]
        for piece in pieces[1:]:
            if varies[position]:
                pattern.append(piece)
            else:
                pattern[-1] += str(numbers[position]) + piece
            position += 1
        patterns.append(tuple(pattern))
    return tuple(patterns)


def families(rows: Sequence[Sequence[str]]) -> list[Family]:
    """Every row in one family: those with a running number first, then one table of what fits none."""
    groups: dict[Any, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(_cut(row)[0], []).append(index)
    found: list[Family] = []
    single: list[int] = []
    for group in groups.values():
        for members in _by_number(group, [_cut(rows[index])[1] for index in group]):
            family = running([rows[index] for index in members]) if len(members) > 1 else None
            if family is None:
                single.extend(members)
            else:
                found.append(Family(members=tuple(members), patterns=family.patterns, numbers=family.numbers))
    if len(single) == 1:
        found.append(Family(members=(single[0],), patterns=tuple((text,) for text in rows[single[0]])))
    elif single:
        columns = list(zip(*(rows[index] for index in sorted(single)), strict=True))
        patterns = tuple((column[0],) if len(set(column)) == 1 else None for column in columns)
        table = [column for column, pattern in zip(columns, patterns, strict=True) if pattern is None]
        found.append(Family(members=tuple(sorted(single)), patterns=patterns, table=tuple(zip(*table, strict=True))))
    return sorted(found, key=lambda family: min(family.members))


def _by_number(group: list[int], vectors: list[tuple[int, ...]]) -> list[list[int]]:
    """Cut rows of one skeleton so that in each cut one number runs: the one with most values, where several do."""
    columns = {column: position for position, column in reversed(list(enumerate(zip(*vectors, strict=True))))}
    varying = sorted((column for column in columns if len(set(column)) > 1), key=lambda c: (-len(set(c)), columns[c]))
    if not varying:
        return [[index] for index in group]
    cuts: dict[Any, list[tuple[int, int]]] = {}
    for place, index in enumerate(group):
        cuts.setdefault(tuple(column[place] for column in varying[1:]), []).append((varying[0][place], index))
    return [[index for _, index in sorted(cut)] for cut in cuts.values()]
