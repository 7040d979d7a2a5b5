"""The operators of a dynamic program as lines of Python: one a line, in the program's order, with a comment a group of weights.

Texts of a trace are quoted, or checked to be names, so that nothing in a program can become code of its own.
"""

import itertools
import keyword
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from tidalctl.artifacts.trace.tape import values_in
from tidalctl.compiler.dynamic.program import Program, ProgramStep

_OPERATOR = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*){2}", re.ASCII)


@cache
def _overload(name: str) -> Any:
    """Return an operator by its name. Raise ValueError where torch has none of it, or a script can't call it."""
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
    if torch.Tag.nondeterministic_seeded in found.tags:
        raise ValueError(f"{name} draws random numbers")
    return found


def comment(text: str) -> str:
    """Return a text as a comment of one line."""
    return f"# {text if text.isprintable() else repr(text)}"


def build_lines(program: Program) -> list[str]:
    """Return the lines that fill `made` from `tensor(file, key)`, `weights(name)`, `event` and `files`."""
    return _Body(program).lines()


class _Body:
    """Fetches tensors just before their first use, since a weight of the template may still be on its way.

    A variable whose value is not used any more is used again, so that memory is freed as it is in init.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._fetches = {leaf.value: f"weights({leaf.name!r})" for leaf in program.leaves}
        self._fetches |= {read.value: f"tensor({read.file!r}, {read.key!r})" for read in program.reads}
        self._last_use = {value: index for index, step in enumerate(program.steps) for value in (*_given(step), *step.outputs)}
        self._variables: dict[int, str] = {}
        self._held: dict[str, int] = {}  # which value a variable holds
        self._now = 0
        self._lines: list[str] = []

    def lines(self) -> list[str]:
        ends: dict[int, list[str]] = {}
        for name, value in sorted(self._program.results.items()):
            ends.setdefault(self._last_use.get(value, len(self._program.steps)), []).append(name)
        begun = 0
        for index, step in enumerate((*self._program.steps, None)):
            self._now = index
            if step is not None:
                self._write(step)
            names = ends.get(index, [])
            for name in names:
                self._lines.append(f"made[{name!r}] = {self._variable(self._program.results[name])}")
            if names:
                self._lines.insert(begun, comment(", ".join(names)))
                begun = len(self._lines)
        return self._lines

    def _variable(self, value: int) -> str:
        """Return the variable that holds a value, which is fetched where that has not been done."""
        if value not in self._variables:
            text = self._fetches[value]
            self._lines.append(f"{self._bind(value)} = {text}")
        return self._variables[value]

    def _bind(self, value: int) -> str:
        """Return a variable for a value: a new one, or one whose value is not used from here on."""
        names = (f"t{number}" for number in itertools.count(1))
        name = next(n for n in names if n not in self._held or self._last_use.get(self._held[n], -1) < self._now)
        self._held[name] = value
        self._variables[value] = name
        return name

    def _write(self, step: ProgramStep) -> None:
        if not _OPERATOR.fullmatch(step.operator):
            raise ValueError(f"{step.operator!r} is not an operator")
        returns = _overload(step.operator)._schema.returns
        one = len(returns) == 1 and str(returns[0].type) == "Tensor"
        if len(returns) > 1 and step.outputs and len(returns) != len(step.outputs):
            raise ValueError(f"{step.operator} has {len(returns)} results, of which {len(step.outputs)} are tensors")
        call = self._call(step)
        if not step.outputs or (one and step.outputs[0] in _given(step)):  # it returns what it has written to
            self._lines.append(call)
            return
        variables = [self._variables.get(value) or self._bind(value) for value in step.outputs]
        targets = variables[0] if one else f"({', '.join(variables)},)"
        self._lines.append(f"{targets} = {call}")

    def _call(self, step: ProgramStep) -> str:
        arguments = [self._argument(argument) for argument in step.arguments]
        for name, given in sorted(step.keywords.items(), key=lambda item: keyword.iskeyword(item[0])):
            text = self._argument(given)
            arguments.append(f"**{{{name!r}: {text}}}" if keyword.iskeyword(name) else f"{_identifier(name)}={text}")
        packet, _, last = step.operator.rpartition(".")
        said = f"getattr(torch.ops.{packet}, {last!r})" if keyword.iskeyword(last) else f"torch.ops.{step.operator}"
        return f"{said}({', '.join(arguments)})"

    def _argument(self, argument: Any) -> str:
        """Return an argument, given as a tape gives it."""
        if argument is None or isinstance(argument, bool | int | str):
            return repr(argument)
        if isinstance(argument, float):
            return repr(argument) if math.isfinite(argument) else f"float('{argument}')"
        if isinstance(argument, Sequence):
            return f"[{', '.join(map(self._argument, argument))}]"
        if not isinstance(argument, Mapping) or len(argument) != 1:
            raise ValueError(f"{argument!r} is no argument that a script can give")
        ((kind, what),) = argument.items()
        if kind == "value":
            return self._variable(what)
        if kind == "expression":
            return str(what)
        if kind == "float":
            return self._argument(float(what))
        if kind == "complex":
            return f"complex({self._argument(float(what[0]))}, {self._argument(float(what[1]))})"
        if kind == "device":
            return f"torch.device({what!r})"
        if kind in ("dtype", "layout", "memory_format"):
            return f"torch.{_identifier(str(what).removeprefix('torch.'))}"
        raise ValueError(f"an argument of the kind {kind!r}, which a script can't give")


def _given(step: ProgramStep) -> list[int]:
    return values_in([*step.arguments, *step.keywords.values()])


def _identifier(text: str) -> str:
    """Return a text that is a name in Python. Raise ValueError where it is none."""
    if not (text.isascii() and text.isidentifier()) or keyword.iskeyword(text):
        raise ValueError(f"{text!r} is not a name")
    return text
