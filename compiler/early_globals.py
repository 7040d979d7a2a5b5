"""Whether init may look at a global that the handler has set before it: a counter of requests, say, which it has no business with.

A plain value that nothing but its module's dictionary holds can be had by its name alone. So can a function that names it, where only a
module's dictionary holds that. So init can't have looked at the value where none of the project's code that ran in it has one of these
names, or another way to what a module holds.
"""

import collections
import contextvars
import datetime
import decimal
import dis
import gc
import importlib
import inspect
import pathlib
import pkgutil
import re
import sys
import threading
import types
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tidalctl.compiler.module_state import Global, ModuleState

_PLAIN = (
    *(str, bytes, int, float, complex, bool, type(None), decimal.Decimal, uuid.UUID),
    *(pathlib.PosixPath, pathlib.PurePosixPath, datetime.date, datetime.datetime, datetime.time, datetime.timedelta),
)
_CONTAINERS = (dict, list, set, collections.deque, collections.Counter, collections.defaultdict, collections.OrderedDict)
_CONTEXTS = frozenset(["Context", "Token", "hamt", "hamt_array_node", "hamt_bitmap_node", "hamt_collision_node"])
# by which code gets at modules, at globals that it doesn't name, at other code, at all context variables, or into another process
_BUILTINS = frozenset(["eval", "exec", "globals", "__import__", "builtins", "inspect", "multiprocessing"])
_ATTRIBUTES = frozenset(
    [
        *("__globals__", "__builtins__", "f_globals", "f_back", "_getframe", "import_module", "resolve_name", "copy_context"),
        *("fork", "get_objects", "get_referrers", "get_referents", "ProcessPoolExecutor"),
    ]
)
_OBJECTS = (
    *(eval, exec, globals, __import__, sys._getframe, sys.modules, importlib.import_module, pkgutil.resolve_name),
    *(contextvars.copy_context, gc.get_objects, gc.get_referrers, gc.get_referents),
)
_GLOBAL_LOADS = frozenset(["LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME", "IMPORT_FROM", "LOAD_FROM_DICT_OR_GLOBALS"])
_WORD = re.compile(r"[^\W\d]\w*")


class EarlyGlobals:
    """Globals that were set before init was called. Enter it for that call; it tells which of them init may have looked at.

    Slows every call in Python meanwhile. Where threads or a profiler are at work already, init may have looked at everything. What a
    library's code, written in C or not, makes of names that are in files is not seen.
    """

    def __init__(self, places: Iterable[Global], modules: ModuleState) -> None:
        self._places = sorted(places)
        self._project = modules
        self._dicts = {id(vars(module)): name for name, module in modules.project_modules()}
        self._seen: dict[int, types.CodeType] = {}  # all, kept alive, so that each has a number of its own
        self._own: list[tuple[types.CodeType, dict[str, Any]]] = []
        self._blind = False
        self._names: dict[Global, frozenset[str]] = {}  # by each global, all names that lead to it

    def held(self, init: Any) -> str:
        """The first that init has a name for, or might come by without one, dotted; empty for none. Ask it before init is called."""
        if gc.get_freeze_count():
            return _dotted(self._places[0])  # what is frozen tells nobody what it holds
        functions = _Functions(self._dicts)
        for module, name in self._places:
            holder = vars(sys.modules[module])
            names = functions.that_lead_to(name, module)
            if names is None or not self._by_name(module) or not only_here(holder.get(name), [holder]):
                return f"{module}.{name}"
            self._names[module, name] = names | self._names_of(module)
        if isinstance(code := getattr(init, "__code__", None), types.CodeType):
            self._own.append((code, init.__globals__))
        return self.looked_at()

    def _by_name(self, module: str) -> bool:
        """Whether nothing but modules of the project holds a module."""
        return all(id(other) in self._dicts for other in _referrers(sys.modules[module], [sys.modules]))

    def _names_of(self, module: str) -> frozenset[str]:
        """What a module is called: in imports, and in the project's modules."""
        itself = sys.modules[module]
        bound = [
            name for _, other in self._project.project_modules() for name, value in list(vars(other).items()) if value is itself
        ]
        return frozenset([*bound, *module.split(".")])

    def __enter__(self) -> "EarlyGlobals":
        self._blind = sys.getprofile() is not None or len(sys._current_frames()) > 1
        if not self._blind:
            sys.setprofile(self._note)
            threading.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._blind:
            return
        self._blind = sys.getprofile() != self._note
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]

    def _note(self, frame: types.FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and id(code) not in self._seen:
            self._seen[id(code)] = code
            if id(frame.f_globals) in self._dicts or self._project.owns_file(code.co_filename):
                self._own.append((code, frame.f_globals))

    def looked_at(self) -> str:
        """The first that init may have looked at by its name, dotted; empty for none."""
        codes = [(inner, namespace) for code, namespace in self._own for inner in _nested(code)]
        names = frozenset(name for code, _ in codes for name in names_in(code))
        everything = self._blind or any(_reflects(code, namespace) for code, namespace in codes)
        for place in self._places:
            if everything or not names.isdisjoint(self._names.get(place, names)):
                return _dotted(place)
        return ""


class _Functions:
    """All functions of the process but those that run now, by the names that their code has."""

    def __init__(self, dicts: Mapping[int, str]) -> None:
        running = set(_stack())
        found = [one for one in gc.get_objects() if type(one) is types.FunctionType and id(one.__code__) not in running]
        self._own = [one for one in found if id(one.__globals__) in dicts]
        self._others = [one for one in found if id(one.__globals__) not in dicts]
        self._names = [frozenset(name for inner in _nested(one.__code__) for name in names_in(inner)) for one in self._own]

    def that_lead_to(self, name: str, module: str) -> frozenset[str] | None:
        """The name, and those of functions that have one of these; None where such a function can be had otherwise than by its own."""
        last = module.rpartition(".")[2]
        if any(name in one.__code__.co_names and last in _modules_known_to(one) for one in self._others):
            return None
        names, before = {name}, 0
        while len(names) > before:
            before = len(names)
            for place in range(len(self._own)):  # enumerate would hold each in a tuple
                one = self._own[place]
                if names.isdisjoint(self._names[place]):
                    continue
                if one.__globals__.get(one.__name__) is not one or not only_here(one, [one.__globals__, self._own]):
                    return None
                names.add(one.__name__)
        return frozenset(names)


def _modules_known_to(one: types.FunctionType) -> set[str]:
    """Names of modules that a library's function has, or that its own module has imported; their last parts."""
    held = [one.__globals__.get(name) for name in one.__code__.co_names]
    modules = {value.__name__.rpartition(".")[2] for value in held if isinstance(value, types.ModuleType)}
    return modules.union(name.rpartition(".")[2] for name in one.__code__.co_names)


def only_here(value: Any, holders: Sequence[Any]) -> bool:
    """Whether a value can be had from its holders alone: a plain one, or a container of such, a context variable with one, or a
    function, that nothing else holds. Frames don't count: what is in them is passed on, and then something else holds it.
    """
    if type(value) in (tuple, frozenset):
        return all(type(part) in _PLAIN for part in value)
    if type(value) in _PLAIN:
        return True
    others = _referrers(value, holders)
    if isinstance(value, contextvars.ContextVar):
        return type(value.get(None)) in _PLAIN and all(type(other).__name__ in _CONTEXTS for other in others)
    if others:
        return False
    if type(value) in _CONTAINERS:
        return all(type(part) in _PLAIN for part in [*value, *(value.values() if isinstance(value, dict) else ())])
    return type(value) is types.FunctionType


def names_in(code: types.CodeType) -> Iterator[str]:
    """Names that code has for globals and attributes, and words in its texts, by which it may ask for either; not in its docstring."""
    yield from code.co_names
    waiting: list[Any] = list(code.co_consts)
    if waiting and isinstance(waiting[0], str) and " " in waiting[0] and code.co_flags & inspect.CO_NEWLOCALS:
        del waiting[0]  # a function's docstring
    while waiting:
        constant = waiting.pop()
        if isinstance(constant, str):
            yield from _WORD.findall(constant)
        elif isinstance(constant, tuple | frozenset):
            waiting += constant


def _reflects(code: types.CodeType, namespace: dict[str, Any]) -> bool:
    """Whether code may come by what it has no name for."""
    if not _ATTRIBUTES.isdisjoint(code.co_names):
        return True
    known = [namespace.get(name) for name in code.co_names]
    if any(value is one for value in known for one in _OBJECTS):
        return True
    if "modules" in code.co_names and ("sys" in code.co_names or any(value is sys for value in known)):
        return True
    # model.eval() is none of these
    return any(
        one.opname in _GLOBAL_LOADS and str(one.argval).partition(".")[0] in _BUILTINS for one in dis.get_instructions(code)
    )


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _nested(inner)


def _stack() -> Iterator[int]:
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        yield id(frame.f_code)
        frame = frame.f_back


def _referrers(value: Any, known: Sequence[Any]) -> list[Any]:
    # known is one argument: a tuple of all of them would refer to the value
    found = [other for other in gc.get_referrers(value) if not isinstance(other, types.FrameType)]
    return [other for other in found if not any(other is one for one in known)]


def _dotted(place: Global) -> str:
    return ".".join(place)
