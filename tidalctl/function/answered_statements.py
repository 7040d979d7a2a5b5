"""Statements at the top of a module, answered in place: one call of module_state.run stands for them in the module's code.

Line numbers stay as they are. Imports and definitions among the statements run in each start, before the state of the others is
restored, so that what they evaluate must not hang on the others.
"""

import __future__

import ast
import itertools
from pathlib import Path
from types import CodeType

from tidalctl.artifacts.errors import TidalError
from tidalctl.function.init_mark import as_lines
from tidalctl.function.source import names_bound, names_read

# which run in each start
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_PART = "{}, part {}"  # stands for the code of some statements until they are compiled


def answered_code(tree: ast.Module, path: str, lines: str) -> CodeType:
    """Compile a module with a call of module_state.run in the place of the statements on some lines, `FIRST-LAST` or `LINE`.

    Raises TidalError where no whole statements are on them.
    """
    first_line, last_line = as_lines(lines) or (0, 0)
    statements = statements_on(tree, first_line, last_line)
    if not statements:
        module = Path(path).stem
        near = next((f"{node.lineno}-{node.end_lineno}" for node in tree.body if _last_line(node) >= first_line), None)
        raise TidalError(
            f"--init {module}:{lines}: no whole statements at the top of {module} are on lines {first_line} to {last_line}",
            f"the statement there is {module}:{near}" if near else "name lines that the module has",
        )
    kept = [node for node in statements if isinstance(node, DEFINITIONS)]
    defined = names_bound(kept)
    bound = names_bound(node for node in statements if node not in kept) - defined
    first = next((place for place, node in enumerate(statements) if node not in kept), len(statements))
    amid = next((node.lineno for node in statements[first:] if node in kept and not _is_the_same_before(node, bound)), 0)
    annotations: dict[ast.stmt, ast.stmt] = {node: _annotation(node) for node in statements if isinstance(node, ast.AnnAssign)}
    expanded = [one for node in statements for one in (node, annotations.get(node)) if one is not None]
    run_in_each_start = {*kept, *annotations.values()}
    parts = [(keep, list(part)) for keep, part in itertools.groupby(expanded, run_in_each_start.__contains__)]
    texts = [_PART.format(path, number) for number in range(len(parts))]
    call = ast.parse(
        "__import__('tidalctl.function.module_state', fromlist=['run']).run(globals(), "
        f"{lines!r}, {' '.join(sorted(bound))!r}, {' '.join(sorted(defined))!r}, {amid}, "
        f"{tuple(keep for keep, _ in parts)!r}, {', '.join(map(repr, texts))})"
    ).body[0]
    for node in ast.walk(call):
        ast.copy_location(node, statements[0])
    flags = _future_flags(tree)
    codes = {
        text: compile(ast.Module(part, type_ignores=[]), path, "exec", flags, dont_inherit=True)
        for text, (_, part) in zip(texts, parts, strict=True)
    }
    place = tree.body.index(statements[0])
    tree.body[place : place + len(statements)] = [call]
    code: CodeType = compile(tree, path, "exec", dont_inherit=True)
    constants = (codes.get(value, value) if isinstance(value, str) else value for value in code.co_consts)
    return code.replace(co_consts=tuple(constants))


def statements_on(tree: ast.Module, first: int, last: int) -> list[ast.stmt]:
    """Return the statements at the top of a module that lie on lines `first` to `last`, from the first line to the last.

    None of them where a statement begins before the first line or ends behind the last, or there is none.
    """
    found = [node for node in tree.body if _first_line(node) <= last and _last_line(node) >= first]
    whole = found and _first_line(found[0]) >= first and _last_line(found[-1]) <= last
    return found if whole else []


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _last_line(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _is_the_same_before(node: ast.stmt, bound: set[str]) -> bool:
    """Whether an import or a definition gives the same before some other statements, which bind `bound`.

    Of an import nobody can tell here. A definition does if all that it evaluates are constants and names that those leave alone, and
    attributes of such names in decorators and base classes.
    """
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = node.args
        defaults = [one for one in (*arguments.defaults, *arguments.kw_defaults) if one is not None]
        return not names_read(node.decorator_list) & bound and all(_is_constant(one, bound) for one in defaults)
    if not isinstance(node, ast.ClassDef) or names_read([*node.decorator_list, *node.bases, *node.keywords]) & bound:
        return False
    for inner in node.body:
        if isinstance(inner, ast.Assign | ast.AnnAssign):
            if inner.value is not None and not _is_constant(inner.value, bound):
                return False
        elif isinstance(inner, ast.Expr):
            if not isinstance(inner.value, ast.Constant):
                return False
        elif not isinstance(inner, ast.Pass) and not _is_the_same_before(inner, bound):
            return False
    return True


def _is_constant(value: ast.expr, bound: set[str]) -> bool:
    """Whether an expression is made of constants, and of names that are not in `bound`."""
    made_of = ast.Constant | ast.Tuple | ast.List | ast.Dict | ast.Set | ast.UnaryOp | ast.BinOp | ast.Lambda | ast.Name
    if isinstance(value, ast.Lambda):
        return all(_is_constant(one, bound) for one in (*value.args.defaults, *filter(None, value.args.kw_defaults)))
    if isinstance(value, ast.Name):
        return value.id not in bound
    parts = [one for one in ast.iter_child_nodes(value) if isinstance(one, ast.expr)]
    return isinstance(value, made_of) and all(_is_constant(one, bound) for one in parts)


def _annotation(node: ast.AnnAssign) -> ast.AnnAssign:
    """Return the annotation of a name without the assignment: it goes into the module's `__annotations__`."""
    return ast.copy_location(
        ast.AnnAssign(target=node.target, annotation=node.annotation, value=None, simple=node.simple), node
    )


def _future_flags(tree: ast.Module) -> int:
    """Return the flags of a module's `from __future__ import …`, which hold for each part of it."""
    future = (node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__")
    flags = 0
    for node in future:
        for alias in node.names:
            flags |= getattr(__future__, alias.name).compiler_flag
    return flags
