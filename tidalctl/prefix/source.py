"""Reads an init: the function below its wrappers, its source, proved to be what runs, and the names in it."""

import sys
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType
from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast

# through these a function sees its own locals, frame or source, which are other ones after a split
_FRAMES = frozenset(("_getframe", "_current_frames", "currentframe", "f_locals", "f_back", "tb_frame"))
_SELF = frozenset(("locals", "vars", "dir", "eval", "exec", "globals", "super", "__class__", "breakpoint", "inspect"))
_REFLECTION = _SELF | _FRAMES


class NoPrefix(Exception):
    """Says in words why an init has no static prefix."""


# --- the function, and its source ---------------------------------------------------------------------------------------------------


def unwrap(function: Any) -> tuple[Any, list[Any]]:
    """The function below torch's two gradient modes, and these from the outermost in. Any other wrapper might do anything."""
    modes = []
    while True:
        if type(function) is not FunctionType:
            raise NoPrefix(f"it is not a plain function but a {type(function).__name__}")
        if not hasattr(function, "__wrapped__"):
            break
        modes.append(_mode(function))
        function = function.__wrapped__
    code = function.__code__
    if code.co_flags & 0x2A0:  # generator, coroutine, asynchronous generator
        raise NoPrefix("it is a generator or a coroutine")
    if code.co_freevars:
        raise NoPrefix(f"it closes over {', '.join(code.co_freevars)}")
    if code.co_name == "<lambda>" or code.co_qualname != code.co_name:
        raise NoPrefix(f"{code.co_qualname} is not a function at the top of a module")
    return function, modes


def _mode(wrapper: Any) -> Any:
    """The gradient mode that a wrapper runs its function under, as torch's own closure tells."""
    torch = sys.modules.get("torch")
    code = wrapper.__code__
    if torch is not None and code.co_qualname == "context_decorator.<locals>.decorate_context":
        cells = dict(zip(code.co_freevars, (cell.cell_contents for cell in wrapper.__closure__), strict=True))
        mode = getattr(cells.get("ctx_factory"), "__self__", None)
        if type(mode) in (torch.no_grad, torch.inference_mode) and cells.get("func") is wrapper.__wrapped__:
            if getattr(mode, "mode", True) is not True:
                raise NoPrefix("it is wrapped by inference_mode(False)")
            return type(mode)
    raise NoPrefix(f"it is wrapped by {code.co_qualname}, which may do anything")


def _module_text(scope: dict[str, Any], filename: str) -> str:
    """A module's source as its loader has it: a bundle serves its own copy, under a path where nothing needs to be."""
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
    """The function as its source has it, once that is proved to be the source of what runs."""

    def __init__(self, function: Any) -> None:
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
            raise NoPrefix("its source can't be read") from None
        # never run: for names that a module imports, the compiler makes other code
        self.imports = [one for one in nodes_here(tree.body) if isinstance(one, ast.Import | ast.ImportFrom)]
        self.node = self._find(tree)
        arguments = self.node.args
        self.positional = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
        extra = [one.arg for one in (arguments.vararg, arguments.kwarg) if one]
        self.parameters = {*self.positional, *(one.arg for one in arguments.kwonlyargs), *extra}
        body = self.node.body
        self.declared = {name for one in nodes_here(body) if isinstance(one, ast.Global) for name in one.names}
        self.locals = (self.parameters | names_bound(body)) - self.declared
        self.nonlocals = _written_from_inside(body)
        self.mentioned = mentions(body)
        self._refuse_reflection()

    def _find(self, tree: Any) -> "ast.FunctionDef":
        import ast

        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name == self.code.co_name:
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                if first == self.code.co_firstlineno:
                    found = code_named(self.compile(node), node.name)
                    if found == self.code and found.co_linetable == self.code.co_linetable:
                        return node
        raise NoPrefix("its source is not what runs")

    def compile(self, statement: Any) -> CodeType:
        """A module of this one's imports and a statement."""
        import ast

        module = ast.Module([*self.imports, statement], [])
        return compile(module, self.filename, "exec", self.flags, dont_inherit=True)

    def _refuse_reflection(self) -> None:
        import ast

        for node in ast.walk(ast.Module(self.node.body, [])):
            seen = set()
            if isinstance(node, ast.Name):
                seen = {node.id} & _REFLECTION
            elif isinstance(node, ast.Attribute):
                seen = {node.attr} & _FRAMES
            elif isinstance(node, ast.Import):
                seen = {part for one in node.names for part in one.name.split(".")} & _REFLECTION
            elif isinstance(node, ast.ImportFrom):
                seen = {*(one.name for one in node.names), *(node.module or "").split(".")} & _REFLECTION
            if seen:
                raise NoPrefix(
                    f"line {getattr(node, 'lineno', 0)} mentions {seen.pop()}, which may look at the function itself"
                )

    def is_global(self, name: str, value: Any) -> bool:
        """Whether a name in the function is the module's, and now is that value."""
        return name not in self.locals | self.declared and self.function.__globals__.get(name) is value

    def is_builtin(self, name: str) -> bool:
        import builtins

        shadowed = name in self.locals | self.declared or name in self.function.__globals__
        return not shadowed and self.function.__builtins__.get(name) is getattr(builtins, name)


def code_named(module: CodeType, name: str) -> CodeType:
    """The first code of that name in a module's code, outermost first."""
    level = [module]
    while level:
        inner = [const for code in level for const in code.co_consts if isinstance(const, CodeType)]
        for code in inner:
            if code.co_name == name:
                return code
        level = inner
    raise NoPrefix(f"no code of {name}")


# --- names --------------------------------------------------------------------------------------------------------------------------


def _names(node: Any) -> Iterator[str]:
    """The identifiers that one node itself reads, binds or declares. Attributes and keywords of calls are not names."""
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
    import ast

    return {name for one in nodes for node in ast.walk(one) for name in _names(node)}


def nodes_here(nodes: Iterable[Any]) -> Iterator[Any]:
    """Every node that belongs to the function itself: of nested functions and classes, only what is evaluated where they stand."""
    import ast

    for node in nodes:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from nodes_here([*node.decorator_list, *evaluated(node.args), *([node.returns] if node.returns else [])])
        elif isinstance(node, ast.Lambda):
            yield from nodes_here(evaluated(node.args))
        elif isinstance(node, ast.ClassDef):
            yield from nodes_here([*node.decorator_list, *node.bases, *node.keywords])
        else:
            yield from nodes_here(ast.iter_child_nodes(node))


def evaluated(arguments: "ast.arguments") -> list[Any]:
    """What a signature evaluates when its function is defined."""
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
    annotations = [one.annotation for one in every if one and one.annotation]
    return [*arguments.defaults, *(one for one in arguments.kw_defaults if one), *annotations]


def names_bound(nodes: Iterable[Any]) -> set[str]:
    """The names that statements bind or delete in their own function."""
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
    """The names that statements load, delete or augment, nested functions included."""
    import ast

    found: set[str] = set()
    for one in nodes:
        for node in ast.walk(one):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.AugAssign):
                found.update(_names(node.target))
    return found


def names_captured(statement: Any) -> set[str]:
    """The names that functions made by a statement look up when they are called: they share these with it, and see them change."""
    import ast

    found: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            body = node.body if isinstance(node.body, list) else [node.body]
            outer = {name for one in nodes_here(body) if isinstance(one, ast.Nonlocal | ast.Global) for name in one.names}
            own = {name for one in ast.walk(node.args) if isinstance(one, ast.arg) for name in _names(one)}
            found |= mentions(body) - ((own | names_bound(body)) - outer)
        elif isinstance(node, ast.ClassDef):
            found |= mentions(node.body)
        elif isinstance(node, ast.GeneratorExp):
            first, *rest = node.generators  # where it starts from is evaluated at once
            own = {name for one in node.generators for name in mentions([one.target])}
            found |= mentions([node.elt, *first.ifs, *rest]) - own
    return found


def _written_from_inside(nodes: Iterable[Any]) -> set[str]:
    """The names that nested functions, or the generators that a function makes, may bind later."""
    import ast

    found: set[str] = set()
    for one in nodes:
        for node in ast.walk(one):
            if isinstance(node, ast.Nonlocal):
                found.update(node.names)
            elif isinstance(node, ast.GeneratorExp):
                found.update(inner.target.id for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr))
    return found
