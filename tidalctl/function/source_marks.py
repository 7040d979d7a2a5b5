"""Marks of inits in source code: a module is compiled as if `@tidalctl.init` stood above the definition that `--init` names.

The mark is the innermost decorator, so that the code that runs is found, whoever keeps a reference to it: a cache around it, a loader
that was given it while the module was imported, or a thread. Where `--init` names lines (`app:12-14`), the whole statements on them are
answered in place: see module_state.py. Line numbers stay as they are.
"""

import __future__

import ast
import importlib.machinery
import importlib.util
import itertools
import sys
from collections.abc import Iterator, Sequence
from types import CodeType, ModuleType

from tidalctl.function.init_mark import as_lines
from tidalctl.function.source import names_bound, names_read

_KEPT = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)  # run in each start
_PART = "{}, part {}"  # stands for the code of some statements until they are compiled

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def marked_code(source: bytes, path: str, name: str, *, static: bool) -> CodeType | None:
    """Compile a module's source with the function, method or class `name` marked. None where it defines none of this name.

    Of a class it is `__init__` that is marked. A name `FIRST-LAST` means the statements on these lines. Raises SyntaxError.
    """
    tree = ast.parse(source, path)
    if lines := as_lines(name):
        return _answered_code(tree, path, name, statements_on(tree, *lines))
    found = [marked for definition in _definitions(tree.body, name.split(".")) for marked in _functions(definition)]
    for function in found:
        mark = ast.parse(f"__import__('tidalctl').init(static={static})", mode="eval").body
        for node in ast.walk(mark):
            ast.copy_location(node, function)
        function.decorator_list.append(mark)
    return compile(tree, path, "exec", dont_inherit=True) if found else None


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


def _answered_code(tree: ast.Module, path: str, name: str, statements: list[ast.stmt]) -> CodeType | None:
    """Compile a module with a call of module_state.run in the place of some of its statements. None where there are none."""
    if not statements:
        return None
    kept = [node for node in statements if isinstance(node, _KEPT)]
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
        f"{name!r}, {' '.join(sorted(bound))!r}, {' '.join(sorted(defined))!r}, {amid}, "
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
    module: CodeType = compile(tree, path, "exec", dont_inherit=True)
    constants = (codes.get(value, value) if isinstance(value, str) else value for value in module.co_consts)
    return module.replace(co_consts=tuple(constants))


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


def imported_from(source: bytes, package: str, name: str) -> tuple[str, str] | None:
    """Return the module that a name is imported from, and its name there: of `from .models import load as name`. Raises SyntaxError."""
    first, _, rest = name.partition(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == first:
                    module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                    return module, f"{alias.name}.{rest}" if rest else alias.name
    return None


def _definitions(body: Sequence[ast.stmt], names: Sequence[str]) -> Iterator[Definition]:
    """Yield the definitions of a dotted name in statements, also in blocks of `if` and `try`."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name == names[0]:
                if len(names) == 1:
                    yield node
                elif isinstance(node, ast.ClassDef):
                    yield from _definitions(node.body, names[1:])
            continue
        for inner in ("body", "orelse", "finalbody"):
            yield from _definitions(getattr(node, inner, []), names)
        for handler in getattr(node, "handlers", []):
            yield from _definitions(handler.body, names)


def _functions(definition: Definition) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    if isinstance(definition, ast.ClassDef):
        definition = next((inner for inner in _definitions(definition.body, ["__init__"])), definition)
    if not isinstance(definition, ast.ClassDef):
        yield definition


class MarkingFinder:
    """A context in which a module is imported with its init marked. Stands before every other finder, and finds as they do."""

    def __init__(self, module: str, name: str, *, static: bool) -> None:
        self._wanted = {module: name}
        self._static = static

    def __enter__(self) -> "MarkingFinder":
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]
        return self

    def __exit__(self, *_: object) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)  # type: ignore[arg-type]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._wanted or target is not None:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target)) is not None), None)
        loader = spec.loader if spec is not None else None
        if isinstance(loader, importlib.machinery.SourceFileLoader):
            self._mark(loader, fullname)
        return spec

    def _mark(self, loader: importlib.machinery.SourceFileLoader, module: str) -> None:
        def get_code(fullname: str) -> CodeType | None:
            vars(loader).pop("get_code", None)  # from now on nothing tells the loader from any other
            return self._code(loader, module) or loader.get_code(fullname)

        loader.get_code = get_code  # type: ignore[method-assign]

    def _code(self, loader: importlib.machinery.SourceFileLoader, module: str) -> CodeType | None:
        packed: CodeType | None = getattr(loader, "packed_code", lambda: None)()
        if packed is not None:  # and marked, by compile
            return packed
        name, source = self._wanted[module], loader.get_data(loader.path)
        try:
            code = marked_code(source, loader.path, name, static=self._static)
            package = module if loader.is_package(module) else module.rpartition(".")[0]
            found = None if code is not None else imported_from(source, package, name)
        except (SyntaxError, ImportError):  # which the import itself will meet, and tell
            return None
        if found is not None:
            self._wanted[found[0]] = found[1]
        return code
