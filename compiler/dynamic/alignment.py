"""Slices of several events laid over one another: the same steps with other numbers, which then have to be explained by the event."""

from collections.abc import Callable, Sequence
from typing import Any

from tidalctl.artifacts.trace.tape import values_in
from tidalctl.compiler.dynamic.slicing import NotSliced, Slice

# (the values of one argument, one for each event; where it stands) -> what stands in the program
Explain = Callable[[tuple[Any, ...], str], Any]


class Alignment:
    """Maps each event's value numbers to those of the first. Raises NotSliced where the slices are not of one form."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        self.first = slices[0]
        self.slices = slices
        self._to_first: list[dict[int, int]] = [{} for _ in slices]
        if len({len(cut.steps) for cut in slices}) > 1 or len({tuple(sorted(cut.results)) for cut in slices}) > 1:
            raise NotSliced("init takes other steps for one event than for another")
        for row in zip(*(cut.steps for cut in slices), strict=True):
            if len({(step.operator, len(step.outputs), len(step.arguments), tuple(sorted(step.keywords))) for step in row}) > 1:
                raise NotSliced(f"init takes {row[0].operator} for one event where it takes {row[1].operator} for another")
            used = [values_in([step.arguments, [value for _, value in sorted(step.keywords.items())]]) for step in row]
            self._match(used)
            self._match([list(step.outputs) for step in row])
        for name in self.first.results:
            self._match([[cut.results[name]] for cut in slices])
        self.reads = [self._others(read.value, "reads") for read in self.first.reads]
        for leaf in self.first.leaves:
            if len({other.identity for other in self._others(leaf.value, "leaves")}) > 1:
                raise NotSliced("a tensor that does not depend on the event stands in another place for another")

    def _match(self, rows: Sequence[Sequence[int]]) -> None:
        if len({len(row) for row in rows}) > 1:
            raise NotSliced("an operator takes other tensors for one event than for another")
        for index, row in enumerate(rows):
            for number, first in zip(row, rows[0], strict=True):
                if self._to_first[index].setdefault(number, first) != first:
                    raise NotSliced("an operator takes other tensors for one event than for another")

    def _others(self, value: int, kind: str) -> list[Any]:
        """The reads, or leaves, of all events that stand where the first's `value` stands."""
        found = []
        for cut, names in zip(self.slices, self._to_first, strict=True):
            alike = [record for record in getattr(cut, kind) if names.get(record.value) == value]
            if len(alike) != 1:
                raise NotSliced("a tensor is read for one event and not for another")
            found.append(alike[0])
        return found

    def arguments(self, index: int, explain: Explain) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a step, in the first event's value numbers, with what differs between events explained."""
        row = [cut.steps[index] for cut in self.slices]
        where = row[0].operator
        positional = tuple(
            self._merged([step.arguments[place] for step in row], explain, where) for place in range(len(row[0].arguments))
        )
        return positional, {
            name: self._merged([step.keywords[name] for step in row], explain, where) for name in row[0].keywords
        }

    def _merged(self, values: list[Any], explain: Explain, where: str) -> Any:
        first = values[0]
        if isinstance(first, dict) and "value" in first:
            return first  # matched already
        if isinstance(first, list | tuple):
            if any(not isinstance(value, list | tuple) or len(value) != len(first) for value in values):
                raise NotSliced(f"{where} takes a list of another length for another event")
            return [self._merged([value[place] for value in values], explain, where) for place in range(len(first))]
        if isinstance(first, dict) and ("opaque" in first or "generator" in first or "meta" in first):
            raise NotSliced(f"{where} takes a {next(iter(first.values()))}, which can't be written down")
        return explain(tuple(values), where)
