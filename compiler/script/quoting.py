"""Texts of a trace as Python: quoted, or checked to be a name, or an expression of a small language.

Everything that comes from a trace passes through here, so that nothing in a program can become code of its own.
"""

import ast
import keyword
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tidalctl.compiler.dynamic.program import ProgramStep


def quoted(text: str) -> str:
    """Return a Python literal on one line, with everything that does not print escaped; in double quotes where that is as good."""
    literal = repr(text)
    return '"' + literal[1:-1].replace("\\'", "'") + '"' if literal[0] == "'" and '"' not in text else literal


def comment(text: str) -> str:
    """Return a text as a comment of one line."""
    return f"# {text if text.isprintable() else repr(text)}"


def identifier(text: Any) -> str:
    """Return a text that is a name in Python. Raise ValueError where it is none."""
    if not isinstance(text, str) or not (text.isascii() and text.isidentifier()) or keyword.iskeyword(text):
        raise ValueError(f"{text!r} is not a name")
    return text


def in_torch(name: Any) -> str:
    """Return an attribute of torch, such as a dtype: `float16` and `torch.float16` are the same."""
    return "torch." + identifier(str(name).removeprefix("torch."))


def arguments_of(step: ProgramStep) -> list[Any]:
    """Return a step's arguments, those given by keyword last."""
    return [*step.arguments, *step.keywords.values()]


def values_in(argument: Any) -> Iterator[int]:
    """Yield the numbers of the values that an argument names, those in expressions included."""
    if isinstance(argument, list | tuple):
        for item in argument:
            yield from values_in(item)
    elif isinstance(argument, Mapping):
        if set(argument) == {"value"}:
            yield int(argument["value"])
        elif set(argument) == {"expression"}:
            yield from shapes_in(argument["expression"])
        else:
            for item in argument.values():
                yield from values_in(item)


def expressions_in(argument: Any) -> Iterator[str]:
    """Yield the expressions in an argument."""
    if isinstance(argument, list | tuple):
        for item in argument:
            yield from expressions_in(item)
    elif isinstance(argument, Mapping):
        for key, item in argument.items():
            if key == "expression":
                yield item
            else:
                yield from expressions_in(item)


def shapes_in(expression: str) -> Iterator[int]:
    """Yield the values whose shape an expression asks for."""
    for node in ast.walk(_parsed(expression)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "shape":
            yield _shape(node)[0]


def expression_text(expression: str, names: Mapping[str, str], shape: Callable[[int, int], str]) -> str:
    """Return an expression as Python, with `names` put for its names and `shape(value, dimension)` for its sizes.

    Raise ValueError for anything but subscripts, arithmetic, constants, math.sqrt, int, float and shape.
    """
    return ast.unparse(_Rewriting(names, shape).visit(_parsed(expression)))


def _parsed(expression: str) -> ast.AST:
    try:
        return ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"{expression!r} is not an expression: {error}") from None


def _shape(node: ast.Call) -> tuple[int, int]:
    numbers = [item.value for item in node.args if isinstance(item, ast.Constant) and type(item.value) is int]
    if len(numbers) != 2 or len(node.args) != 2 or node.keywords:
        raise ValueError("shape() takes the number of a value and a dimension")
    return numbers[0], numbers[1]


_PLAIN_NODES = (ast.Expression, ast.Constant, ast.Subscript, ast.BinOp, ast.UnaryOp, ast.Load, ast.operator, ast.unaryop)


class _Rewriting(ast.NodeTransformer):
    """Replaces names and sizes, and refuses all else that is not in the language. `unparse` writes the id of a Name as it is."""

    def __init__(self, names: Mapping[str, str], shape: Callable[[int, int], str]) -> None:
        self._names, self._shape_text = names, shape

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, _PLAIN_NODES):
            raise ValueError(f"{type(node).__name__} in an expression")  # noqa: TRY004
        return super().generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id not in self._names:
            raise ValueError(f"{node.id} in an expression")
        return ast.Name(id=self._names[node.id], ctx=ast.Load())

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not isinstance(node.value, bool | int | float | str):
            raise ValueError(f"{node.value!r} in an expression")  # noqa: TRY004
        return ast.Name(id=quoted(node.value), ctx=ast.Load()) if isinstance(node.value, str) else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if ast.unparse(node.func) == "shape":
            return ast.Name(id=self._shape_text(*_shape(node)), ctx=ast.Load())
        if ast.unparse(node.func) not in ("math.sqrt", "int", "float") or node.keywords:
            raise ValueError(f"{ast.unparse(node.func)}() in an expression")
        return ast.Call(func=node.func, args=[self.visit(item) for item in node.args], keywords=[])
