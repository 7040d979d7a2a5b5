"""How one step of a dynamic program is spelled: the operator's Python form where that dispatches to the same overload, else its name.

A test records what each spelling dispatches. What can't be spelled raises ValueError.
"""

import keyword
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from tidalctl.artifacts.program import ProgramStep
from tidalctl.compiler.script_text import expression_text, identifier, in_torch, quoted

_OPERATOR = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*){2}", re.ASCII)
_SIGNS = {"aten.mul.Tensor": "*", "aten.add.Tensor": "+", "aten.sub.Tensor": "-", "aten.div.Tensor": "/"}
# operator: (name, the kinds of its arguments as _fits has them, the first tensor of a method left out, keywords)
_METHODS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "aten.add_.Tensor": ("add_", "a", ("alpha",)),
    "aten.sub_.Tensor": ("sub_", "a", ("alpha",)),
    "aten.mul_.Tensor": ("mul_", "a", ()),
    "aten.div_.Tensor": ("div_", "a", ()),
    "aten.copy_.default": ("copy_", "v", ()),
    "aten.fill_.Scalar": ("fill_", "n", ()),
    "aten.zero_.default": ("zero_", "", ()),
    "aten.uniform_.default": ("uniform_", "oo", ()),
    "aten.normal_.default": ("normal_", "oo", ()),
    "aten.clone.default": ("clone", "", ("memory_format",)),
    "aten.t.default": ("t", "", ()),
    "aten.transpose.int": ("transpose", "nn", ()),
    "aten.permute.default": ("permute", "l", ()),
    "aten.view.default": ("view", "l", ()),
    "aten.expand.default": ("expand", "l", ()),
    "aten.repeat.default": ("repeat", "l", ()),
    "aten.flip.default": ("flip", "l", ()),
    "aten.unsqueeze.default": ("unsqueeze", "n", ()),
    "aten.squeeze.dim": ("squeeze", "n", ()),
    "aten.select.int": ("select", "nn", ()),
    "aten.index_select.default": ("index_select", "nv", ()),
    "aten.neg.default": ("neg", "", ()),
    "aten.abs.default": ("abs", "", ()),
    "aten.exp.default": ("exp", "", ()),
    "aten.sqrt.default": ("sqrt", "", ()),
    "aten.pow.Tensor_Scalar": ("pow", "n", ()),
    "aten.sum.default": ("sum", "", ()),
    "aten.sum.dim_IntList": ("sum", "l", ()),
    "aten.mean.dim": ("mean", "l", ()),
}
_FUNCTIONS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "aten.mm.default": ("mm", "vv", ()),
    "aten.bmm.default": ("bmm", "vv", ()),
    "aten.addmm.default": ("addmm", "vvv", ("alpha", "beta")),
    "aten.add.Tensor": ("add", "vv", ("alpha",)),
    "aten.sub.Tensor": ("sub", "vv", ("alpha",)),
    "aten.where.self": ("where", "vvv", ()),
    "aten.cat.default": ("cat", "to", ()),
    "aten.stack.default": ("stack", "to", ()),
}
_FACTORIES: dict[str, tuple[str, str]] = {
    "aten.zeros.default": ("zeros", "l"),
    "aten.ones.default": ("ones", "l"),
    "aten.empty.memory_format": ("empty", "l"),
    "aten.full.default": ("full", "ln"),
    "aten.rand.default": ("rand", "l"),
    "aten.randn.default": ("randn", "l"),
    "aten.arange.default": ("arange", "n"),
    "aten.arange.start": ("arange", "nn"),
    "aten.arange.start_step": ("arange", "nnn"),
}
READABLE = tuple(sorted({*_SIGNS, *_METHODS, *_FUNCTIONS, *_FACTORIES, "aten._to_copy.default"}))
_KEEPS_DTYPE = {
    name for name in (*_METHODS, *_FUNCTIONS) if not re.search(r"\.(sum|mean|abs|exp|sqrt|pow|where|cat|stack)\.", name)
}
_FLOATING = ("float16", "bfloat16", "float32", "float64")


class Speller:
    """Spells steps. `names` are what expressions may name, `value` gives the mark of a value; `dtypes` are those that are sure."""

    def __init__(self, names: Mapping[str, str], value: Callable[[int], str], dtypes: dict[int, str]) -> None:
        self._names, self._value = names, value
        self.dtypes = dtypes

    def argument(self, argument: Any) -> str:
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

    def _keywords(self, keywords: Mapping[str, Any]) -> list[str]:
        said = []
        for name in sorted(keywords, key=lambda name: (keyword.iskeyword(name), name)):
            text = self.argument(keywords[name])
            said.append(f"**{{{quoted(name)}: {text}}}" if keyword.iskeyword(name) else f"{identifier(name)}={text}")
        return said

    def call(self, step: ProgramStep) -> str:
        """The call, without what becomes of its result."""
        if not _OPERATOR.fullmatch(step.operator) or any(map(keyword.iskeyword, step.operator.split(".")[:2])):
            raise ValueError(f"{step.operator!r} is not an operator")
        text = self._readable(step) or self._by_name(step)
        if len(step.outputs) == 1 and (dtype := self._dtype_after(step)):
            self.dtypes.setdefault(step.outputs[0], dtype)
        return text

    def _by_name(self, step: ProgramStep) -> str:
        arguments = [*map(self.argument, step.arguments), *self._keywords(step.keywords)]
        name, _, last = step.operator.rpartition(".")
        said = f'getattr(torch.ops.{name}, "{last}")' if keyword.iskeyword(last) else f"torch.ops.{step.operator}"
        return f"{said}({', '.join(arguments)})"

    def _readable(self, step: ProgramStep) -> str:
        name, arguments, keywords = step.operator, step.arguments, dict(step.keywords)
        if name in _SIGNS and not keywords and _fits("va", arguments):
            other = self.argument(arguments[1])
            plain = " " not in other or _is_value(arguments[1])
            return f"{self.argument(arguments[0])} {_SIGNS[name]} {other if plain else f'({other})'}"
        if name in _METHODS and set(keywords) <= set(_METHODS[name][2]) and _fits("v" + _METHODS[name][1], arguments):
            first, *rest = map(self.argument, arguments)
            return f"{first}.{_METHODS[name][0]}({', '.join([*rest, *self._keywords(keywords)])})"
        if name in _FUNCTIONS and set(keywords) <= set(_FUNCTIONS[name][2]) and _fits(_FUNCTIONS[name][1], arguments):
            return f"torch.{_FUNCTIONS[name][0]}({', '.join([*map(self.argument, arguments), *self._keywords(keywords)])})"
        if name in _FACTORIES and _fits(_FACTORIES[name][1], arguments) and keywords.pop("pin_memory", None) is False:
            # torch fills in device and pin_memory when it is called from Python, so they are always on the tape
            device = keywords.pop("device", None)
            if isinstance(device, Mapping) and set(device) == {"device"} and set(keywords) <= {"dtype"}:
                said = [*map(self.argument, arguments), *self._keywords(keywords), f"device={self.argument(device['device'])}"]
                return f"torch.{_FACTORIES[name][0]}({', '.join(said)})"
        if name == "aten._to_copy.default" and set(keywords) == {"dtype"} and _fits("v", arguments):
            # .to() does nothing where the dtype is already that one
            target = keywords["dtype"].get("dtype") if isinstance(keywords["dtype"], Mapping) else None
            known = self.dtypes.get(int(arguments[0]["value"]))
            copies = isinstance(target, str) and known and known != target.removeprefix("torch.")
            return f"{self.argument(arguments[0])}.to({self.argument(keywords['dtype'])}{'' if copies else ', copy=True'})"
        return ""

    def _dtype_after(self, step: ProgramStep) -> str:
        """The result's dtype, or nothing where that would take knowing torch's promotion."""
        if isinstance(asked := step.keywords.get("dtype"), Mapping):
            return asked["dtype"].removeprefix("torch.") if isinstance(asked.get("dtype"), str) else ""
        if step.operator not in _KEEPS_DTYPE and step.operator not in _SIGNS:
            return ""
        seen = {self.dtypes.get(int(item["value"]), "") for item in step.arguments if _is_value(item)}
        (dtype,) = seen if len(seen) == 1 else ("",)
        real = all(_is_value(item) or isinstance(item, int | float) for item in step.arguments)
        return dtype if step.operator in _KEEPS_DTYPE or (real and dtype in _FLOATING) else ""


def _is_value(argument: Any) -> bool:
    return isinstance(argument, Mapping) and set(argument) == {"value"}


def _is_number(argument: Any) -> bool:
    return type(argument) in (int, float) or (isinstance(argument, Mapping) and set(argument) == {"expression"})


def _fits(kinds: str, arguments: tuple[Any, ...]) -> bool:
    """v a tensor, n a number, a either, l a list of numbers, t a list of tensors, o a number that may be left out."""
    if not len(kinds.rstrip("o")) <= len(arguments) <= len(kinds):
        return False
    return all(_FITS[kind](argument) for kind, argument in zip(kinds, arguments, strict=False))


def _all(one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda many: isinstance(many, list | tuple) and all(map(one, many))


_FITS: dict[str, Callable[[Any], bool]] = {
    "v": _is_value,
    "n": _is_number,
    "o": _is_number,
    "a": lambda argument: _is_value(argument) or _is_number(argument),
    "l": _all(_is_number),
    "t": _all(_is_value),
}
