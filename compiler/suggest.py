"""What compile suggests for an init that reads the event: to move its leading statements into a function marked static.

A nested static init needs one traced event and no inference, and serves every event. Which statements come before the first read of the
event is what the trace saw; nothing here changes how a bundle is made.
"""

import ast
from collections.abc import Sequence
from pathlib import Path

from tidalctl.function.source import mentions, names_bound, names_read, nodes_here

SHOWN = 12  # lines of the user's that are shown; of more, the middle is left out


def suggestion(source: Path, init: str, first_event_line: int) -> str | None:
    """Return which lines of `init`, a function at the top of the module in `source`, could be static, and the change for that.

    `first_event_line` is where the trace saw init read the event first. None where the source can't be read, no statement with a call
    comes before that, or what these statements leave can't be handed on by a return.
    """
    try:
        text = source.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return None
    node = next((one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == init), None)
    if node is None:
        return None
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    leading = _leading(body, node.args, first_event_line)
    rest = body[len(leading) :]
    while leading and isinstance(leading[-1], ast.Import | ast.ImportFrom):
        rest = [leading.pop(), *rest]
    moved = [one for one in leading if not isinstance(one, ast.Import | ast.ImportFrom)]
    stay = [one for one in leading if one not in moved and names_bound([one]) & names_read(rest)]
    needed = names_bound(moved) & names_read(rest)
    returned = [name for name in _bound_in_order(moved) if name in needed]
    calls = any(isinstance(one, ast.Call) for one in nodes_here(moved))
    if not calls or not returned or len(returned) < len(needed):
        return None
    return _text(source.name, text.splitlines(), node, leading, stay, returned, _free_name(init, tree))


def _leading(body: Sequence[ast.stmt], arguments: ast.arguments, first_event_line: int) -> list[ast.stmt]:
    """Return the first statements that end before a line, mention no parameter, and may stand in a function of their own."""
    parameters = {one.arg for one in ast.walk(arguments) if isinstance(one, ast.arg)}
    found = []
    for statement in body:
        last = statement.end_lineno or statement.lineno
        bound_here = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        leaves = (ast.Return, ast.Yield, ast.YieldFrom, ast.Await, ast.Global, ast.Nonlocal)
        if last >= first_event_line or mentions([statement]) & parameters or bound_here:
            break
        if any(isinstance(one, leaves) for one in nodes_here([statement])):
            break
        found.append(statement)
    return found


def _bound_in_order(statements: Sequence[ast.stmt]) -> list[str]:
    """Return the names that statements assign to, each once."""
    stored = (one.id for one in nodes_here(statements) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store))
    return list(dict.fromkeys(stored))


def _free_name(init: str, tree: ast.Module) -> str:
    """Return a name for the new function that the module has no use for."""
    taken = mentions([tree])
    names = (f"{init}{end}" for end in ("_base", "_static", *(f"_static_{number}" for number in range(2, len(taken) + 3))))
    return next(name for name in names if name not in taken)


def _text(
    file: str,
    lines: Sequence[str],
    node: ast.FunctionDef,
    leading: Sequence[ast.stmt],
    stay: Sequence[ast.stmt],
    returned: Sequence[str],
    name: str,
) -> str:
    first, last = leading[0].lineno, leading[-1].end_lineno or leading[-1].lineno
    where = f"line {first}" if first == last else f"lines {first}-{last}"
    names = ", ".join(returned)
    every = [f"@{ast.unparse(one)}" for one in node.decorator_list]
    decorators = [one for one in every if one.partition("(")[0] not in ("@tidalctl.init", "@init")]
    own = [lines[number - 1] for number in range(first, last + 1)]
    if len(own) > SHOWN:
        own = [*own[: SHOWN // 2], f"{' ' * leading[0].col_offset}...", *own[-SHOWN // 2 :]]
    indent = own[0][: len(own[0]) - len(own[0].lstrip())]
    signature = f"def {node.name}({ast.unparse(node.args)}):"
    change = [
        "@tidalctl.init(static=True)",
        *decorators,
        f"def {name}():",
        *own,
        f"{indent}return {names}",
        "",
        *decorators,
        f"{signature}  # no longer {'marked' if len(decorators) < len(every) else 'named by --init'}",
        *(f"{indent}{ast.unparse(one)}" for one in stay),
        f"{indent}{names} = {name}()  # in place of {where}",
    ]
    what = (
        f"{where} of {file} read nothing of the event; in a function marked static they need one traced event and nothing to infer,"
        f" and serve every event:"
    )
    return "\n".join([what, *(f"    {line}".rstrip() for line in change)])
