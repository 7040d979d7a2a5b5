"""Marks of inits in source code: a module is compiled as if `@tidalctl.init` stood above the definition that `--init` names.

The mark is the innermost decorator, so that the code that runs is found, whoever keeps a reference to it: a cache around it, a loader
that was given it while the module was imported, or a thread. Line numbers stay as they are. Where `--init` names lines
(`app:12-14`), the statements on them are answered in place instead: see answered_statements.py.
"""

import ast
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Sequence
from types import CodeType, ModuleType

from tidalctl.function.init_mark import as_lines

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def marked_code(source: bytes, path: str, names: Sequence[str], *, static: bool) -> CodeType | None:
    """Compile a module's source with the functions, methods and classes of these names marked. None where it defines none of them.

    Of a class it is `__init__` that is marked. A name `FIRST-LAST` means the statements on these lines. Raises SyntaxError, and
    TidalError where there are no whole ones.
    """
    tree = ast.parse(source, path)
    dotted = [name.split(".") for name in names if not as_lines(name)]
    found = [marked for name in dotted for one in _definitions(tree.body, name) for marked in _functions(one)]
    for function in found:
        mark = ast.parse(f"__import__('tidalctl').init(static={static})", mode="eval").body
        for node in ast.walk(mark):
            ast.copy_location(node, function)
        function.decorator_list.append(mark)
    if lines := next((name for name in names if as_lines(name)), None):
        from tidalctl.function.answered_statements import answered_code  # few starts need it

        return answered_code(tree, path, lines)
    return compile(tree, path, "exec", dont_inherit=True) if found else None


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
    """A context in which modules are imported with their inits marked, which `inits` names as `module:name`.

    Stands before every other finder, and finds as they do.
    """

    def __init__(self, inits: Iterable[str], *, static: bool) -> None:
        self._wanted: dict[str, list[str]] = {}
        for init in inits:
            self._want(*init.split(":", 1))
        self._static = static

    def _want(self, module: str, name: str) -> None:
        self._wanted.setdefault(module, []).append(name)

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
        names, source = self._wanted[module], loader.get_data(loader.path)
        try:
            code = marked_code(source, loader.path, names, static=self._static)
            package = module if loader.is_package(module) else module.rpartition(".")[0]
            for found in filter(None, (imported_from(source, package, name) for name in names)):
                self._want(*found)
        except (SyntaxError, ImportError):  # which the import itself will meet, and tell
            return None
        return code
