"""Decides statement by statement where an init is cut: what is static, what is done in both parts, and what is left for the run."""

import sys
from dataclasses import dataclass, field
from typing import Any

from tidalctl.prefix.source import NoPrefix, Source, evaluated, mentions, names_bound, names_captured, nodes_here

_PURE_CALLS = frozenset(("str", "int", "float", "bool", "len"))
_CONTEXTS = ("no_grad", "inference_mode")
_MODE_SETTERS = frozenset(("set_grad_enabled", "_set_grad_enabled", "__enter__", "enter_context"))
_READS = " reads the event"


@dataclass
class Cut:
    before: list[Any] = field(default_factory=list)  # bodies of the halves
    after: list[Any] = field(default_factory=list)
    static: list[Any] = field(default_factory=list)  # their statements one by one, those of a split `with` included
    reruns: list[Any] = field(default_factory=list)  # imports and functions, in both
    rest: list[Any] = field(default_factory=list)  # only in the suffix
    deferred: set[str] = field(default_factory=set)
    why: str = ""


def settle(source: Source, in_mode: bool) -> Cut:
    """Cut as far down as the names allow, and then further up until nothing that is shared across the cut can tell."""
    stops: dict[int, str] = {}
    while True:
        cut = Cut()
        cut.before, cut.after, _ = _Divider(source, stops, cut).divide(source.node.body, in_mode)
        found = _shared(source, cut)
        if found is None:
            break
        statement, why = found
        stops[id(statement)] = f"line {statement.lineno} {why}"
    if all(_idle(one) for one in cut.static):
        first = next((one for one in source.node.body if not is_text(one)), None)
        if cut.rest and cut.rest[0] is first and cut.why.endswith(_READS):
            raise NoPrefix(f"its first statement{_READS}")
        raise NoPrefix(
            f"nothing that works stands before the cut: {cut.why}" if cut.why else "it does nothing without the event"
        )
    return cut


class _Divider:
    def __init__(self, source: Source, stops: dict[int, str], cut: Cut) -> None:
        self.source, self.stops, self.cut = source, stops, cut
        first = source.positional[:1]
        count = len(source.positional) - len(source.function.__defaults__ or ())
        if first and count == 0 and not isinstance(source.function.__defaults__[0], str | int | float | None):
            first = []  # a default that others may hold and change
        self.pure = set(first)
        self.mentioned: set[str] = set()

    def divide(self, body: list[Any], in_mode: bool) -> tuple[list[Any], list[Any], bool]:
        """The static statements of a body, those for the suffix, and whether the cut is in it."""
        import ast

        before: list[Any] = []
        after: list[Any] = []
        for index, statement in enumerate(body):
            if id(statement) not in self.stops and self._is_mode(statement):
                first, second, stopped = self.divide(statement.body, True)
                for part, half in ((first, before), (second, after)):
                    if part:
                        half.append(ast.copy_location(ast.With(statement.items, part), statement))
                if stopped:
                    after.extend(body[index + 1 :])
                    self.cut.rest.extend(body[index + 1 :])
                    return before, after, True
                continue
            why = self._why_not(statement, in_mode)
            if not why:
                before.append(statement)
                self.mentioned |= mentions([statement])
                if _reruns(statement):
                    after.append(statement)
                    self.cut.reruns.append(statement)
                else:
                    self.cut.static.append(statement)
            elif id(statement) not in self.stops and self._is_extraction(statement):
                after.append(statement)
                self.cut.rest.append(statement)
                bound = names_bound([statement])
                self.cut.deferred |= bound
                self.pure |= bound
            else:
                after.extend(body[index:])
                self.cut.rest.extend(body[index:])
                self.cut.why = why
                return before, after, True
        return before, after, False

    def _is_mode(self, statement: Any) -> bool:
        """`with torch.no_grad():` or `inference_mode`, which can be left and entered again in between."""
        import ast

        def known(item: ast.withitem) -> bool:
            match item:
                case ast.withitem(ast.Call(ast.Attribute(ast.Name("torch"), name), [], []), None):
                    return name in _CONTEXTS
            return False

        torch = sys.modules.get("torch")
        return (
            isinstance(statement, ast.With)
            and torch is not None
            and self.source.is_global("torch", torch)
            and all(known(item) for item in statement.items)
        )

    def _why_not(self, statement: Any, in_mode: bool) -> str:
        """Why a statement is not static; empty where it is."""
        import ast

        here = f"line {statement.lineno}"
        if id(statement) in self.stops:
            return self.stops[id(statement)]
        touched = mentions([statement]) & (self.source.parameters | self.cut.deferred)
        if touched:
            event = self.source.positional[:1]
            if touched & self.cut.deferred or touched == set(event):
                return f"{here}{_READS}"
            return f"{here} reads {', '.join(sorted(touched))}"
        if not isinstance(statement, _kinds()):
            return f"{here} is a {type(statement).__name__.lower()}"
        for node in nodes_here([statement]):
            if isinstance(node, ast.Return):
                return f"{here} returns" if node is statement else f"{here} may return"
            if in_mode and isinstance(node, ast.Attribute) and node.attr in _MODE_SETTERS:
                return f"{here} sets a mode inside a mode"
        if _reruns(statement) and not isinstance(statement, ast.Import | ast.ImportFrom):
            return self._why_not_twice(statement, here)
        return ""

    def _why_not_twice(self, statement: Any, here: str) -> str:
        """Why a nested function or class can't be made once more in the suffix: making it would run something, or give another."""
        import ast

        if statement.decorator_list or getattr(statement, "type_params", None):
            return f"{here} defines {statement.name} with a decorator or type parameters"
        if isinstance(statement, ast.ClassDef):
            if statement.bases or statement.keywords:
                return f"{here} defines the class {statement.name}, which has bases"
            for one in statement.body:
                value = one.value if isinstance(one, ast.Assign | ast.Expr) else None
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
                    if why := self._why_not_twice(one, here):
                        return why
                elif not (isinstance(one, ast.Pass) or (value and _is_literal(value))):
                    return f"{here} defines the class {statement.name}, whose body runs code"
            return ""
        arguments = statement.args
        if not all(isinstance(one, ast.Constant) for one in (*arguments.defaults, *arguments.kw_defaults) if one):
            return f"{here} defines {statement.name} with a default that is no constant"
        allowed = ast.Name | ast.Attribute | ast.Subscript | ast.Constant | ast.Tuple | ast.BinOp | ast.BitOr | ast.expr_context
        annotations = [one for one in (*evaluated(arguments), statement.returns) if one]
        inner = [node for one in annotations for node in ast.walk(one)]
        if not all(isinstance(node, allowed) for node in inner) or mentions(annotations) & self.source.locals:
            return f"{here} defines {statement.name} with an annotation that runs code"
        return ""

    def _is_extraction(self, statement: Any) -> bool:
        """Whether a statement only takes something out of the event into locals, which is the same a little later."""
        import ast

        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign) and statement.value and statement.simple:
            targets = [statement.target]
        else:
            return False
        names = {one.id for one in targets if isinstance(one, ast.Name)}
        plain = all(isinstance(one, ast.Name) for one in targets) and names <= self.source.locals - self.source.nonlocals
        return plain and not names & self.mentioned and self._is_pure(statement.value)

    def _is_pure(self, node: Any) -> bool:
        import ast

        match node:
            case ast.Constant():
                return True
            case ast.Name(name):
                return name in self.pure
            case ast.Call(ast.Name(name), [value], []):
                return name in _PURE_CALLS and self.source.is_builtin(name) and self._is_pure(value)
            case ast.Call(ast.Attribute(value, "get"), [_, *_] as arguments, []):
                return self._is_pure(value) and all(self._is_pure(one) for one in arguments)
            case ast.Call(ast.Attribute(ast.Attribute(ast.Name("os"), "path"), "join"), [_, *_] as arguments, []):
                import os

                genuine = self.source.is_global("os", os) and os.path is sys.modules.get("posixpath")
                return genuine and all(self._is_pure(one) for one in arguments)
            case (
                ast.JoinedStr()
                | ast.FormattedValue()
                | ast.BinOp()
                | ast.UnaryOp()
                | ast.Compare()
                | ast.BoolOp()
                | ast.IfExp()
            ):
                pass
            case ast.Subscript() | ast.Slice() | ast.List() | ast.Tuple() | ast.Dict():
                pass
            case _:
                return False
        quiet = ast.operator | ast.unaryop | ast.cmpop | ast.boolop | ast.expr_context
        return all(isinstance(one, quiet) or self._is_pure(one) for one in ast.iter_child_nodes(node))


def _shared(source: Source, cut: Cut) -> tuple[Any, str] | None:
    """The first statement before the cut that makes something which the suffix could tell from the function's own."""
    import ast

    rebound = names_bound(cut.rest) | source.nonlocals
    imports = {name for one in cut.reruns if isinstance(one, ast.Import | ast.ImportFrom) for name in names_bound([one])}
    taken = {alias.name for one in cut.reruns if isinstance(one, ast.ImportFrom) for alias in one.names}
    classes = {one.name: one for one in cut.reruns if isinstance(one, ast.ClassDef)}
    functions = {one.name for one in cut.reruns if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
    for one in sorted((*cut.static, *cut.reruns), key=lambda leaf: (leaf.lineno, leaf.col_offset)):
        late = names_captured(one) & rebound & source.locals
        if late:
            return one, f"makes a function that sees {', '.join(sorted(late))} change"
        if one in cut.static and names_bound([one]) & (imports | functions | set(classes)):
            return one, "binds the name of an import or a nested function again"
        called = [node.func for node in ast.walk(one) if isinstance(node, ast.Call)]
        for node in ast.walk(one):
            if isinstance(node, ast.Name) and node.id in classes:
                return classes[node.id], f"defines the class {node.id}, of which the prefix would have another"
            if isinstance(node, ast.Name) and node.id in functions and node not in called:
                return one, f"hands on {node.id}, of which the suffix would have another"
            if isinstance(node, ast.Attribute) and node.attr in taken and not isinstance(node.ctx, ast.Load):
                return one, f"replaces {node.attr}, which is imported by name"
    return None


def _kinds() -> Any:
    import ast

    simple = ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Expr | ast.Raise | ast.Assert | ast.Delete | ast.Pass | ast.Global
    return simple | ast.For | ast.While | ast.If | ast.With | ast.Try | ast.TryStar | ast.Match | _doubles()


def _doubles() -> Any:
    import ast

    return ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _reruns(statement: Any) -> bool:
    return isinstance(statement, _doubles())


def is_text(statement: Any) -> bool:
    import ast

    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_literal(node: Any) -> bool:
    import ast

    literal = ast.Constant | ast.List | ast.Tuple | ast.Dict | ast.Set | ast.UnaryOp | ast.unaryop | ast.expr_context
    return all(isinstance(one, literal) for one in ast.walk(node))


def _idle(statement: Any) -> bool:
    """Whether a static statement does nothing that is worth keeping."""
    import ast

    if isinstance(statement, ast.Pass | ast.Global) or is_text(statement):
        return True
    if isinstance(statement, ast.AnnAssign):
        return statement.value is None or _is_literal(statement.value)
    plain = isinstance(statement, ast.Assign) and all(isinstance(one, ast.Name) for one in statement.targets)
    return plain and _is_literal(statement.value)
