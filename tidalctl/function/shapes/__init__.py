"""Shapes in which other servers want a function: each is turned into a `handler(event, context)` by a module here.

A shape's module has three functions. `find(tree, name)` looks at a module's source for what the shape consists of, `name` being what
the user asked for (empty: whatever there is). `init(module, name)` names what builds the state. `handler(module, name)` makes the
handler of the imported module. Of the servers' own packages nothing is imported here.

Example: `tidalctl trace predict.py` finds a class `Predictor(BasePredictor)` in predict.py. The shape is `cog`, the name `Predictor`,
the init `predict:Predictor.setup`, and the handler calls `predict(**event)` of an object that is made and set up for the first event.
"""

import ast
import enum
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


class ShapeName(enum.StrEnum):
    """The shapes, in the order in which a source is looked at. Any callable has the last one, so that it is never found."""

    LITSERVE = "litserve"
    COG = "cog"
    SAGEMAKER = "sagemaker"
    KEYWORDS = "keywords"


class Found(NamedTuple):
    """A shape, the name in the module that it is about, and the init as `--init` would name it (empty: none is known)."""

    shape: str
    name: str
    init: str


class Shape(Protocol):
    """What a shape's module offers."""

    def find(self, tree: ast.Module, name: str) -> str | None:
        """Return the name of what has the shape in a module's source, or None."""

    def init(self, module: str, name: str) -> str:
        """Return what `--init` would name; empty where the shape says nothing of it."""

    def handler(self, module: Any, name: str) -> Callable[[Any, Any], Any]:
        """Return `handler(event, context)` over what has the name in the imported module."""


def shape_named(name: str) -> Shape:
    """Return a shape by its name."""
    shape: Any = importlib.import_module(f"tidalctl.function.shapes.{name}")
    return shape  # type: ignore[no-any-return]


def find_shape(source: bytes, module: str, name: str, wanted: str = "") -> Found | None:
    """Return the shape of a module's source, or of what `name` means in it; None for an ordinary handler.

    With `wanted` only that shape counts. A source that can't be parsed has none: its import will tell.
    """
    from tidalctl.function.source import names_bound  # the bench's plain process has nothing else of ours

    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    is_class = any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body)
    if not wanted and not is_class and (name or "handler") in names_bound(tree.body):
        return None
    for shape in (wanted,) if wanted else [known.value for known in ShapeName if known is not ShapeName.KEYWORDS]:
        made = shape_named(shape)
        found = made.find(tree, name) or (name if wanted and name in names_bound(tree.body) else None)
        if found is not None:
            return Found(shape, found, made.init(module, found))
    return None


def functions_of(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the functions at the top of a module."""
    yield from (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def class_of(tree: ast.Module, name: str, base: str, *methods: str) -> str | None:
    """Return the name of a class that is named so (empty: any) and has a base class, or all methods, of these names.

    Bases in the same module count with theirs. Of a class and its subclass it is the subclass.
    """
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    bases = {one: {ast.unparse(base).rpartition(".")[2] for base in node.bases} for one, node in classes.items()}
    found = []
    for one in classes:
        line, waiting = {one}, [one]
        while waiting:
            new = bases.get(waiting.pop(), set()) - line
            line |= new
            waiting += new
        has = {member.name for each in line & classes.keys() for member in classes[each].body if isinstance(member, _FUNCTIONS)}
        if base in line or has >= set(methods):
            found.append(one)
    leaves = [one for one in found if one == name or (not name and not any(one in bases[other] for other in found))]
    return leaves[-1] if leaves else None
