"""The source text of a function that is loaded in this process, proved to be what runs, and the names that statements use."""

import sys
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType
from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast

_GENERATOR_FLAGS = 0x2A0  # generator, coroutine, asynchronous generator


class SourceUnknown(Exception):
    """The source of a function can't be told for certain. The message says why."""


# --- the function and its source ----------------------------------------------------------------------------------------------------


def unwrap(function: Any) -> tuple[FunctionType, list[Any]]:
    """Return the plain function below torch's `no_grad` and `inference_mode` decorators, and those decorators, outermost first.

    Raises SourceUnknown for any other wrapper, and for generators, coroutines, lambdas, closures and functions that are not at the
    top of a module.
    """
    modes = []
    while True:
        if type(function) is not FunctionType:
            raise SourceUnknown(f"it is not a plain function but a {type(function).__name__}")
        if not hasattr(function, "__wrapped__"):
            break
        modes.append(_gradient_mode(function))
        function = function.__wrapped__
    code = function.__code__
    if code.co_flags & _GENERATOR_FLAGS:
        raise SourceUnknown("it is a generator or a coroutine")
    if code.co_freevars:
        raise SourceUnknown(f"it closes over {', '.join(code.co_freevars)}")
    if code.co_name == "<lambda>" or code.co_qualname != code.co_name:
        raise SourceUnknown(f"{code.co_qualname} is not a function at the top of a module")
    return function, modes


def _gradient_mode(wrapper: FunctionType) -> Any:
    """Return the gradient mode (a class of torch) that a wrapper runs its function under. Raises SourceUnknown for other wrappers."""
    torch = sys.modules.get("torch")
    code = wrapper.__code__
    if torch is not None and code.co_qualname == "context_decorator.<locals>.decorate_context":
        cells = dict(zip(code.co_freevars, (cell.cell_contents for cell in wrapper.__closure__ or ()), strict=True))
        mode = getattr(cells.get("ctx_factory"), "__self__", None)
        if type(mode) in (torch.no_grad, torch.inference_mode) and cells.get("func") is wrapper.__wrapped__:  # type: ignore[attr-defined]
            if getattr(mode, "mode", True) is not True:
                raise SourceUnknown("it is wrapped by inference_mode(False)")
            return type(mode)
    raise SourceUnknown(f"it is wrapped by {code.co_qualname}, which may do anything")


def _module_text(scope: dict[str, Any], filename: str) -> str:
    """Return a module's source text as its loader gives it, which need not be a file at the module's path, else from linecache."""
    spec = scope.get("__spec__")
    loader = scope.get("__loader__") or getattr(spec, "loader", None)
    try:
        text = loader.get_source(spec.name if spec else scope.get("__name__"))  # type: ignore[union-attr]
    except (AttributeError, ImportError, OSError, SyntaxError):
        text = None
    if text is None:
        import linecache

        text = "".join(linecache.getlines(filename, scope))
    return text


class Source:
    """The syntax tree of a plain function, in `node`.

    The tree is proved to be the function's: compiled again, it gives the code that runs, down to the line table. Raises SourceUnknown
    where the source can't be read, or has changed since the module was imported.
    """

    def __init__(self, function: FunctionType) -> None:
        import __future__

        import ast

        self.function = function
        self.code: CodeType = function.__code__
        self.filename = self.code.co_filename
        self.flags = 0
        for name in __future__.all_feature_names:
            self.flags |= getattr(__future__, name).compiler_flag & self.code.co_flags
        text = _module_text(function.__globals__, self.filename)
        try:
            tree = compile(text, self.filename, "exec", self.flags | ast.PyCF_ONLY_AST, dont_inherit=True)
        except (SyntaxError, ValueError):
            raise SourceUnknown("its source can't be read") from None
        # compiled with the function and never run: the compiler makes other code for names that a module imports
        self.imports = [node for node in nodes_here(tree.body) if isinstance(node, ast.Import | ast.ImportFrom)]
        self.node = self._find(tree)

    def _find(self, tree: Any) -> "ast.FunctionDef":
        import ast

        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name == self.code.co_name:
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                if first == self.code.co_firstlineno:
                    found = code_named(self.compile(node), node.name)
                    if found == self.code and found.co_linetable == self.code.co_linetable:
                        return node
        raise SourceUnknown("its source is not what runs")

    def compile(self, statement: Any) -> CodeType:
        """Compile a module that holds this one's imports and a statement."""
        import ast

        module = ast.Module([*self.imports, statement], [])
        return compile(module, self.filename, "exec", self.flags, dont_inherit=True)


def code_named(module: CodeType, name: str) -> CodeType:
    """Return the outermost code object of that name in a module's code. Raises SourceUnknown where there is none."""
    level = [module]
    while level:
        inner = [constant for code in level for constant in code.co_consts if isinstance(constant, CodeType)]
        for code in inner:
            if code.co_name == name:
                return code
        level = inner
    raise SourceUnknown(f"no code of {name}")


# --- names --------------------------------------------------------------------------------------------------------------------------


def _names(node: Any) -> Iterator[str]:
    """Yield the identifiers that one node itself reads, binds or declares. Attributes and keywords of calls are not names."""
    import ast

    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.alias):
        yield node.asname or node.name.partition(".")[0]
    elif isinstance(node, ast.Global | ast.Nonlocal):
        yield from node.names
    elif isinstance(node, ast.MatchMapping):
        if node.rest:
            yield node.rest
    elif isinstance(
        node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler | ast.MatchAs | ast.MatchStar
    ):
        yield from [node.name] if node.name else []


def mentions(nodes: Iterable[Any]) -> set[str]:
    """Return every name in the nodes and below them."""
    import ast

    return {name for one in nodes for node in ast.walk(one) for name in _names(node)}


def nodes_here(nodes: Iterable[Any]) -> Iterator[Any]:
    """Yield every node that belongs to the function itself: of nested functions and classes, only what is evaluated in place."""
    import ast

    for node in nodes:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from nodes_here([*node.decorator_list, *_evaluated(node.args), *([node.returns] if node.returns else [])])
        elif isinstance(node, ast.Lambda):
            yield from nodes_here(_evaluated(node.args))
        elif isinstance(node, ast.ClassDef):
            yield from nodes_here([*node.decorator_list, *node.bases, *node.keywords])
        else:
            yield from nodes_here(ast.iter_child_nodes(node))


def _evaluated(arguments: "ast.arguments") -> list[Any]:
    """Return the expressions of a signature that are evaluated when its function is defined."""
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
    annotations = [one.annotation for one in every if one and one.annotation]
    return [*arguments.defaults, *(one for one in arguments.kw_defaults if one), *annotations]


def names_bound(nodes: Iterable[Any]) -> set[str]:
    """Return the names that statements bind or delete in their own function."""
    import ast

    here = list(nodes_here(nodes))
    # a comprehension's targets are its own
    own = {id(one) for node in here if isinstance(node, ast.comprehension) for one in ast.walk(node.target)}
    found: set[str] = set()
    for node in here:
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load) and id(node) not in own:
                found.add(node.id)
        elif not isinstance(node, ast.arg | ast.Global | ast.Nonlocal):
            found.update(_names(node))
    return found


def names_read(nodes: Iterable[Any]) -> set[str]:
    """Return the names that statements load, delete or augment, nested functions included."""
    import ast

    found: set[str] = set()
    for one in nodes:
        for node in ast.walk(one):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.AugAssign):
                found.update(_names(node.target))
    return found
