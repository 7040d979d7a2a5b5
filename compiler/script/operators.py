"""One step of a dynamic program as Python: in its usual form where that dispatches to the same overload, else by its name in torch.ops.

A test records what each spelling dispatches. What can't be spelled raises ValueError.
"""

import keyword
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from tidalctl.compiler.dynamic.program import ProgramStep
from tidalctl.compiler.script.quoting import expression_text, identifier, in_torch, quoted

_OPERATOR = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*){2}", re.ASCII)
_SIGNS = {"aten.mul.Tensor": "*", "aten.add.Tensor": "+", "aten.sub.Tensor": "-", "aten.div.Tensor": "/"}
# methods of their first argument, and functions of torch, with the kinds of their arguments: v a tensor, n a number, a either,
# l a list of numbers, t a list of tensors
_METHODS = {
    "aten.add_.Tensor": "va",
    "aten.sub_.Tensor": "va",
    "aten.mul_.Tensor": "va",
    "aten.div_.Tensor": "va",
    "aten.copy_.default": "vv",
    "aten.clone.default": "v",
    "aten.t.default": "v",
    "aten.transpose.int": "vnn",
    "aten.permute.default": "vl",
    "aten.view.default": "vl",
    "aten.expand.default": "vl",
    "aten.unsqueeze.default": "vn",
    "aten.squeeze.dim": "vn",
    "aten.select.int": "vnn",
    "aten.neg.default": "v",
    "aten.sum.dim_IntList": "vl",
    "aten.mean.dim": "vl",
}
_FUNCTIONS = {
    "aten.mm.default": "vv",
    "aten.bmm.default": "vv",
    "aten.addmm.default": "vvv",
    "aten.where.self": "vvv",
    "aten.cat.default": "tn",
    "aten.stack.default": "tn",
}
READABLE = tuple(sorted({*_SIGNS, *_METHODS, *_FUNCTIONS, "aten._to_copy.default"}))


class Speller:
    """Spells steps. `names` are what expressions may name; `value` gives the variable of a value."""

    def __init__(self, names: Mapping[str, str], value: Callable[[int], str]) -> None:
        self._names, self._value = names, value

    def call(self, step: ProgramStep) -> str:
        """Return the call, without what becomes of its result."""
        if not _OPERATOR.fullmatch(step.operator) or any(map(keyword.iskeyword, step.operator.split(".")[:2])):
            raise ValueError(f"{step.operator!r} is not an operator")
        return self._readable(step) or self._by_name(step)

    def argument(self, argument: Any) -> str:
        """Return an argument, given as a tape gives it."""
        if argument is None or isinstance(argument, bool | int):
            return repr(argument)
        if isinstance(argument, float):
            return repr(argument) if math.isfinite(argument) else f'float("{argument}")'
        if isinstance(argument, str):
            return quoted(argument)
        if isinstance(argument, list | tuple):
            return "[" + ", ".join(map(self.argument, argument)) + "]"
        if not isinstance(argument, Mapping) or len(argument) != 1:
            raise ValueError(f"{argument!r} is no argument that a script can give")
        ((kind, what),) = argument.items()
        if kind == "value":
            return self._value(int(what))
        if kind == "expression":
            return expression_text(what, self._names, lambda value, dim: f"{self._value(value)}.shape[{dim}]")
        if kind == "float":
            return self.argument(float(what))
        if kind == "complex":
            return f"complex({self.argument(float(what[0]))}, {self.argument(float(what[1]))})"
        if kind == "device":
            return f"torch.device({self.argument(what)})"
        if kind == "dtype" and isinstance(what, Mapping):
            return f"getattr(torch, {self.argument(what)})"
        if kind in ("dtype", "layout", "memory_format"):
            return in_torch(what)
        raise ValueError(f"an argument of the kind {kind!r}, which a script can't give")

    def _by_name(self, step: ProgramStep) -> str:
        arguments = list(map(self.argument, step.arguments))
        for name in sorted(step.keywords, key=lambda name: (keyword.iskeyword(name), name)):
            text = self.argument(step.keywords[name])
            arguments.append(f"**{{{quoted(name)}: {text}}}" if keyword.iskeyword(name) else f"{identifier(name)}={text}")
        name, _, last = step.operator.rpartition(".")
        said = f'getattr(torch.ops.{name}, "{last}")' if keyword.iskeyword(last) else f"torch.ops.{step.operator}"
        return f"{said}({', '.join(arguments)})"

    def _readable(self, step: ProgramStep) -> str | None:
        name, arguments = step.operator, step.arguments
        if name == "aten._to_copy.default" and set(step.keywords) == {"dtype"} and _fits("v", arguments):
            return f"{self.argument(arguments[0])}.to({self.argument(step.keywords['dtype'])}, copy=True)"
        if step.keywords:
            return None
        if name in _SIGNS and _fits("va", arguments):
            one, other = map(self.argument, arguments)
            return f"{one} {_SIGNS[name]} {f'({other})' if ' ' in other else other}"
        if name in _METHODS and _fits(_METHODS[name], arguments):
            first, *rest = map(self.argument, arguments)
            return f"{first}.{name.split('.')[1]}({', '.join(rest)})"
        if name in _FUNCTIONS and _fits(_FUNCTIONS[name], arguments):
            return f"torch.{name.split('.')[1]}({', '.join(map(self.argument, arguments))})"
        return None


def _fits(kinds: str, arguments: tuple[Any, ...]) -> bool:
    """Whether arguments are of these kinds. The last number of a list of tensors may be left out."""
    least = len(kinds) - (kinds == "tn")
    return least <= len(arguments) <= len(kinds) and all(map(_is_kind, kinds, arguments))


def _is_kind(kind: str, argument: Any) -> bool:
    if kind in "lt":
        return isinstance(argument, list | tuple) and all(_is_kind("n" if kind == "l" else "v", item) for item in argument)
    value = isinstance(argument, Mapping) and set(argument) == {"value"}
    number = type(argument) in (int, float) or (isinstance(argument, Mapping) and set(argument) == {"expression"})
    return (value and kind in "va") or (number and kind in "na")
