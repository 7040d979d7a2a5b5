"""Builds the two halves of an init, each a function under the file, the name and the lines of the whole."""

from collections.abc import Callable
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType
from typing import Any

from tidalctl.prefix.cut import Cut, is_text, settle
from tidalctl.prefix.source import Source, code_named, names_bound, names_read, unwrap


@dataclass(frozen=True)
class Split:
    """An init in two.

    `suffix` takes the names out of the dict that it is given, so that what the user's code drops is freed: one dict, one call.
    """

    prefix: Callable[[], dict[str, Any]]
    suffix: Callable[..., Any]  # suffix(carried, *arguments, **keywords)
    carried: tuple[str, ...]
    lines: tuple[int, int]  # first and last of the static statements


def split_init(function: Any) -> Split:
    """Split what `tidalctl.init` got. Raises NoPrefix where nothing at its start is static, or where a split might not be exact."""
    plain, modes = unwrap(function)
    source = Source(plain)
    cut = settle(source, bool(modes))
    carried = tuple(sorted(_carried(source, cut)))
    before, after = _compile(source, cut, carried)

    def under_modes(half: Any) -> Any:
        for mode in reversed(modes):
            half = mode()(half)
        return half

    def prefix() -> dict[str, Any]:
        bound = under_modes(FunctionType(before, plain.__globals__, plain.__name__, None, (CellType(locals),)))()
        return {name: bound[name] for name in carried if name in bound}

    def suffix(carried: dict[str, Any], /, *arguments: Any, **keywords: Any) -> Any:
        closure = (CellType(carried),) if after.co_freevars else ()
        half = FunctionType(after, plain.__globals__, plain.__name__, plain.__defaults__, closure)
        half.__kwdefaults__ = plain.__kwdefaults__
        half.__qualname__, half.__module__, half.__doc__ = plain.__qualname__, plain.__module__, plain.__doc__
        half.__annotations__ = plain.__annotations__
        return under_modes(half)(*arguments, **keywords)

    lines = [line for leaf in (*cut.static, *cut.reruns) if not is_text(leaf) for line in _lines(leaf)]
    return Split(prefix, suffix, carried, (min(lines), max(lines)))


def _lines(statement: Any) -> tuple[int, int]:
    return statement.lineno, statement.end_lineno or statement.lineno


def _carried(source: Source, cut: Cut) -> set[str]:
    import ast

    again = [one for one in cut.reruns if not isinstance(one, ast.Import | ast.ImportFrom)]
    return names_bound(cut.static) & names_read((*cut.rest, *again)) & source.locals


def _compile(source: Source, cut: Cut, carried: tuple[str, ...]) -> tuple[CodeType, CodeType]:
    """Both halves, under the function's own file, name and lines."""
    import ast

    def ours(text: str) -> list[ast.stmt]:
        body = ast.parse(text).body
        for node in ast.walk(ast.Module(body, [])):
            if hasattr(node, "lineno"):
                ast.copy_location(node, source.node)
        return body

    hidden = "_tidalctl"  # a cell of ours, under a name that is nowhere in the function
    while hidden in source.mentioned | source.parameters:
        hidden += "_"
    # what is local to the function is local to both: an unbound local must not turn into a global of that name
    scope = ours("if False: " + "".join(f"{name} = " for name in sorted(source.locals)) + "None")
    if source.declared:
        scope += ours(f"global {', '.join(sorted(source.declared))}")
    take = ours("".join(f"if {name!r} in {hidden}: {name} = {hidden}.pop({name!r})\n" for name in carried))
    nothing = ast.arguments([], [], None, [], [], None, [])
    return (
        _half(source, nothing, [*scope, *cut.before, *ours(f"return {hidden}()")], hidden),
        _half(source, source.node.args, [*scope, *take, *cut.after], hidden),
    )


def _half(source: Source, arguments: Any, body: list[Any], hidden: str) -> CodeType:
    """One half's code. It is defined in a function of ours, for the cell, and declared global there, for its qualified name."""
    import ast

    node = source.node
    kept = {name: getattr(node, name) for name in node._fields if hasattr(node, name)}
    half = ast.copy_location(ast.FunctionDef(**{**kept, "args": arguments, "body": body}), node)
    outer = ast.parse(f"def {hidden}():\n    {hidden} = None\n    global {node.name}\n    pass").body[0]
    outer.body[-1] = half  # type: ignore[attr-defined]
    return code_named(code_named(source.compile(outer), hidden), node.name)
