"""Whether init may look at a global that the handler has set before it: a counter of requests, say, which it has no business with.

A value that only its module's dictionary holds can be had in no other way than by its name. So init can't have looked at it where no
code of the project that ran has the name, or the module's, or one by which Python hands out names.
"""

import collections
import contextvars
import datetime
import decimal
import gc
import pathlib
import sys
import threading
import types
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tidalctl.compiler.module_state import Global

_PLAIN = (
    *(str, bytes, int, float, complex, bool, type(None), decimal.Decimal, uuid.UUID),
    *(pathlib.PosixPath, pathlib.PurePosixPath, datetime.date, datetime.datetime, datetime.time, datetime.timedelta),
)
_CONTAINERS = (dict, list, set, collections.deque, collections.Counter, collections.defaultdict, collections.OrderedDict)
# by which code gets at globals that it doesn't name, at code that isn't its own, or at all context variables
_REFLECTION = frozenset(
    [
        "__globals__",
        "__import__",
        "_getframe",
        "copy_context",
        "currentframe",
        "eval",
        "exec",
        "f_globals",
        "gc",
        "globals",
        "import_module",
        "inspect",
        "modules",
    ]
)
_CONTEXTS = frozenset(["Context", "Token", "hamt", "hamt_array_node", "hamt_bitmap_node", "hamt_collision_node"])


class EarlyGlobals:
    """Globals that were set before init was called. Enter it for that call; it tells which of them init may have looked at.

    It takes the names in the project's code that runs meanwhile, and in functions and classes of the project that such code names,
    which torch.compile or torch.jit may read without running them. Slows every call in Python. Where threads or a profiler are at
    work already, init may have looked at everything.
    """

    def __init__(self, places: Iterable[Global], owns_file: Callable[[str], bool]) -> None:
        self._places = sorted(places)
        self._owns_file = owns_file
        self._seen: dict[int, types.CodeType] = {}  # all, kept alive, so that each has a number of its own
        self._own: list[tuple[types.CodeType, dict[str, Any]]] = []
        self._names: set[str] = set()
        self._modules: set[int] = set()
        self._blind = False

    def held_elsewhere(self) -> str:
        """The first that init might come by without its name, by its dotted name; empty for none. Ask it before init is called."""
        for module, name in self._places:
            holder = vars(sys.modules[module])
            if not only_here(holder.get(name), holder):
                return f"{module}.{name}"
        return ""

    def __enter__(self) -> "EarlyGlobals":
        self._blind = sys.getprofile() is not None or len(sys._current_frames()) > 1
        if self._places and not self._blind:
            sys.setprofile(self._note)
            threading.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._places or self._blind:
            return
        self._blind = sys.getprofile() != self._note
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        self._widen()

    def looked_at(self) -> str:
        """The first that init may have looked at by its name, dotted; empty for none."""
        everything = self._blind or not self._names.isdisjoint(_REFLECTION)
        for module, name in self._places:
            named = not self._names.isdisjoint((name, *module.split(".")))
            if everything or named or id(sys.modules[module]) in self._modules:
                return f"{module}.{name}"
        return ""

    def _note(self, frame: types.FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and id(code) not in self._seen:
            self._seen[id(code)] = code
            if self._owns_file(code.co_filename):
                self._own.append((code, frame.f_globals))

    def _widen(self) -> None:
        """From the code that ran to what it names, and so on."""
        waiting, done = list(self._own), set()
        while waiting:
            code, namespace = waiting.pop()
            if id(code) in done:
                continue
            done.add(id(code))
            self._seen[id(code)] = code
            self._names.update(code.co_names)
            waiting += [(inner, namespace) for inner in code.co_consts if isinstance(inner, types.CodeType)]
            for name in code.co_names:
                value = namespace.get(name)
                if isinstance(value, types.ModuleType):
                    self._modules.add(id(value))
                waiting += [(f.__code__, f.__globals__) for f in _functions(value) if self._owns_file(f.__code__.co_filename)]


def only_here(value: Any, holder: Any) -> bool:
    """Whether a value can be had from its holder alone: a plain one, or a container of such, or a context variable with one,
    that nothing else holds. Frames don't count: what is in them is passed on, and then something else holds it.
    """
    if type(value) in (tuple, frozenset):
        return all(type(part) in _PLAIN for part in value)
    if type(value) in _PLAIN:
        return True
    if gc.get_freeze_count():
        return False  # what is frozen isn't asked
    if isinstance(value, contextvars.ContextVar):
        others = [other for other in _referrers(value, holder) if type(other).__name__ not in _CONTEXTS]
        return not others and type(value.get(None)) in _PLAIN
    if type(value) not in _CONTAINERS or _referrers(value, holder):
        return False
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)
    return all(type(part) in _PLAIN for part in parts)


def _referrers(value: Any, holder: Any) -> list[Any]:
    return [other for other in gc.get_referrers(value) if other is not holder and not isinstance(other, types.FrameType)]


def _functions(value: Any) -> Iterator[types.FunctionType]:
    """A function and what it wraps; the functions of a class or of an object's class, and of those that it derives from."""
    while isinstance(value, types.FunctionType):
        yield value
        value = vars(value).get("__wrapped__")
    if value is None or isinstance(value, types.ModuleType):
        return
    for cls in (value if isinstance(value, type) else type(value)).__mro__:
        for attribute in vars(cls).values():
            inner = getattr(attribute, "__func__", getattr(attribute, "fget", attribute))
            if isinstance(inner, types.FunctionType):
                yield inner
