"""The lines of one turn of a block, with marks where variables and names will stand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tidalctl.artifacts.program import ProgramStep
from tidalctl.compiler.script_groups import overload
from tidalctl.compiler.script_steps import Speller
from tidalctl.compiler.script_text import NAME, VALUE

_NAMED = {
    "mm": "delta",
    "bmm": "delta",
    "addmm": "delta",
    "_to_copy": "cast",
    "mul": "scaled",
    "div": "scaled",
    "clone": "copied",
}


@dataclass(frozen=True)
class Body:
    """The lines of one turn, with marks. `hints` name variables: a place among the names, or a word. `early` lines need no loop.

    `names` are the texts that differ from turn to turn; `keys` says which are keys of files, `results` which are the weights made.
    """

    lines: tuple[str, ...]
    early: tuple[bool, ...]
    names: tuple[str, ...]
    hints: tuple[int | str, ...]
    keys: frozenset[int]
    results: tuple[int, ...]


class Writer:
    """Collects the lines of a body. Reads and leaves are fetched just before their first use: a leaf may still be on its way."""

    def __init__(self, source: Callable[[int], tuple[str, str, bool] | None], free: set[int]) -> None:
        self._source, self._free = source, free
        self._lines: list[str] = []
        self._early: list[bool] = []
        self._places: dict[int, int] = {}
        self._names: dict[tuple[str, bool], int] = {}
        self._hints: list[int | str] = []
        self._results: list[int] = []

    def name(self, text: str, key: bool) -> int:
        return self._names.setdefault((text, key), len(self._names))

    def _bind(self, value: int, hint: int | str) -> str:
        if value not in self._places:
            self._places[value] = len(self._hints)
            self._hints.append(hint)
        return VALUE % self._places[value]

    def _say(self, line: str, early: bool = False) -> None:
        self._lines.append(line)
        self._early.append(early)

    def variable(self, value: int) -> str:
        """The mark of a value, which is fetched if it was not."""
        if value not in self._places and (found := self._source(value)):
            text, name, key = found
            place = self.name(name, key)
            self._say(f"{self._bind(value, place)} = {text % (NAME % place)}", value in self._free)
        if value not in self._places:
            raise ValueError(f"value {value} is used before it is made")
        return VALUE % self._places[value]

    def step(self, step: ProgramStep, speller: Speller) -> None:
        returns = overload(step.operator)._schema.returns
        call = speller.call(step)
        word = step.operator.split(".")[1]
        hint = _NAMED.get(word, "t")
        itself = any(isinstance(item, Mapping) and item.get("value") in step.outputs for item in step.arguments)
        if not step.outputs or (itself and len(step.outputs) == 1):
            self._say(call)
            return
        many = len(returns) != 1 or str(returns[0].type) != "Tensor"
        if many and len(returns) > 1 and len(returns) != len(step.outputs):
            raise ValueError(f"{step.operator} has {len(returns)} results, of which {len(step.outputs)} are tensors")
        if not many and len(step.outputs) != 1:
            raise ValueError(f"{step.operator} has one result, not {len(step.outputs)}")
        marks = [self._bind(value, hint) for value in step.outputs]
        self._say(f"({', '.join(marks)}{',' if len(marks) == 1 else ''}) = {call}" if many else f"{marks[0]} = {call}")

    def result(self, name: str, value: int) -> None:
        mark, place = self.variable(value), self.name(name, False)
        self._results.append(place)
        self._say(f"made[{NAME % place}] = {mark}")

    def body(self) -> Body:
        return Body(
            lines=tuple(self._lines),
            early=tuple(self._early),
            names=tuple(text for text, _ in self._names),
            hints=tuple(self._hints),
            keys=frozenset(place for (_, key), place in self._names.items() if key),
            results=tuple(self._results),
        )
