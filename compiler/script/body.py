"""The operators of a dynamic program as lines of Python: one a line, in the program's order, with a comment a weight."""

import builtins
import keyword
import re
from collections.abc import Mapping

from tidalctl.compiler.dynamic.program import Program, ProgramStep
from tidalctl.compiler.script.checks import checked_storages, overload
from tidalctl.compiler.script.operators import Speller
from tidalctl.compiler.script.quoting import arguments_of, comment, quoted, values_in

_RESERVED = {
    *("event", "weights", "files", "made", "math", "torch"),
    *(*dir(builtins), *keyword.kwlist, *keyword.softkwlist),
}


class Body:
    """Writes the lines that fill `made` from `files` and `weights`.

    Tensors are fetched just before their first use, since a weight of the template may still be on its way. A variable whose value
    is not used any more is used again, so that memory is freed as it is in init.
    """

    def __init__(self, program: Program, names: Mapping[str, str]) -> None:
        self._program = program
        self._storages = checked_storages(program)
        self._torch_files = {file.name for file in program.files if file.kind == "torch"}
        self._fetches: dict[int, tuple[str, str]] = {}  # of reads and leaves: the text that fetches it, and its name
        self._first = self._add_fetches()  # of several values that are the same read or leaf, the first
        self._results = {name: self._same(value) for name, value in sorted(program.results.items())}
        self._last_use = self._find_last_uses()
        self._owners = self._find_owners()
        self._variables: dict[int, str] = {}
        self._held: dict[str, int] = {}  # which value a variable holds
        self._now = 0
        self._owner: str | None = None
        self._speller = Speller(names, lambda value: self._variables[self._same(value)])
        self._lines: list[str] = []

    def lines(self) -> list[str]:
        """Return the lines."""
        ends: dict[int, list[str]] = {}
        for name, value in self._results.items():
            ends.setdefault(self._last_use.get(value, len(self._program.steps)), []).append(name)
        for index, step in enumerate(self._program.steps):
            self._now = index
            self._begin(next((self._owners[s] for s in self._storages_of(step) if s in self._owners), self._owner))
            for value in values_in(arguments_of(step)):
                self._fetch(self._same(value))
            self._write(step)
            for name in ends.get(self._now, ()):
                self._keep(name)
        self._now = len(self._program.steps)
        for name in ends.get(self._now, ()):
            self._begin(name)
            self._keep(name)
        return self._lines

    def _add_fetches(self) -> dict[int, int]:
        first: dict[int, int] = {}
        known: dict[str, int] = {}
        for leaf in self._program.leaves:
            text = f"weights({quoted(leaf.name)})"
            first[leaf.value] = known.setdefault(text, leaf.value)
            self._fetches.setdefault(first[leaf.value], (text, leaf.name))
        for read in self._program.reads:
            file, key = f"files[{quoted(read.file)}]", quoted(read.key)
            text = f"{file}[{key}]" if read.file in self._torch_files else f"{file}.get_tensor({key})"
            first[read.value] = known.setdefault(text, read.value)
            self._fetches.setdefault(first[read.value], (text, read.key))
        return first

    def _same(self, value: int) -> int:
        return self._first.get(value, value)

    def _find_last_uses(self) -> dict[int, int]:
        return {
            self._same(value): index
            for index, step in enumerate(self._program.steps)
            for value in (*values_in(arguments_of(step)), *step.outputs)
        }

    def _find_owners(self) -> dict[int, str]:
        """Return, by storage, a weight that comes of it: the first by name, unless a step in between is another's."""
        owners: dict[int, str] = {}
        for name, value in self._results.items():
            owners.setdefault(self._storages[value], name)
        for step in reversed(self._program.steps):
            owner = next((owners[storage] for storage in self._storages_of(step) if storage in owners), None)
            if owner is not None:
                for value in values_in(arguments_of(step)):
                    owners.setdefault(self._storages[value], owner)
        return owners

    def _storages_of(self, step: ProgramStep) -> list[int]:
        """Return the storages of what a step makes or, where it returns nothing, may write to."""
        return [self._storages[value] for value in step.outputs or values_in(step.arguments)]

    def _begin(self, owner: str | None) -> None:
        if owner is not None and owner != self._owner:
            self._lines.append(comment(owner))
        self._owner = owner

    def _fetch(self, value: int) -> None:
        if value not in self._variables:
            text, name = self._fetches[value]
            self._lines.append(f"{self._bind(value, _hint(name))} = {text}")

    def _keep(self, name: str) -> None:
        self._fetch(self._results[name])
        self._lines.append(f"made[{quoted(name)}] = {self._variables[self._results[name]]}")

    def _write(self, step: ProgramStep) -> None:
        call = self._speller.call(step)
        returns = overload(step.operator)._schema.returns
        one = len(returns) == 1 and str(returns[0].type) == "Tensor"
        if one and len(step.outputs) > 1:
            raise ValueError(f"{step.operator} has one result, not {len(step.outputs)}")
        if len(returns) > 1 and step.outputs and len(returns) != len(step.outputs):
            raise ValueError(f"{step.operator} has {len(returns)} results, of which {len(step.outputs)} are tensors")
        if not step.outputs or (one and step.outputs[0] in values_in(step.arguments)):  # it returns what it has written to
            self._lines.append(call)
            return
        variables = [self._variables.get(self._same(value)) or self._bind(self._same(value), "t") for value in step.outputs]
        targets = f"({', '.join(variables)}{',' if len(variables) == 1 else ''})"
        self._lines.append(f"{variables[0] if one else targets} = {call}")

    def _bind(self, value: int, hint: str) -> str:
        """Return a variable for a value: a new one, or one whose value is not used from here on."""
        number = 1
        while True:
            name = hint if number == 1 and hint != "t" else f"{hint}{'' if hint == 't' else '_'}{number}"
            if name not in _RESERVED and (name not in self._held or self._last_use.get(self._held[name], -1) < self._now):
                self._held[name] = value
                self._variables[value] = name
                return name
            number += 1


def _hint(name: str) -> str:
    """Return a variable's name from the last two words of a key, such as `q_proj_weight`."""
    words = [word for word in re.split(r"[^A-Za-z0-9_]+", name) if word.strip("_") and not word.isdigit()]
    hint = "_".join(words[-2:]).strip("_")
    return hint if hint.isidentifier() else f"n{hint}" if hint else "tensor"
