"""What could be named as the init of a function that marks none and for which none is named: see weight_makers.py."""

import contextlib
import functools
import os
import sys
import threading
from types import FunctionType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from tidalctl.artifacts.project import is_own
from tidalctl.artifacts.trace.records import WeightsBuilt
from tidalctl.function.context import make_context
from tidalctl.function.outputs import called, pieces
from tidalctl.function.target import Handler
from tidalctl.tracer.request import Request

if TYPE_CHECKING:
    from tidalctl.tracer.init.weight_makers import WeightMakers


_FUNCTIONS = (FunctionType, functools._lru_cache_wrapper, staticmethod, classmethod)  # each has the attributes of what it wraps


class Discovery:
    """Finds out who makes the weights, unless an init is named or marked.

    A context, for the import of the function: operators are watched from the moment on at which torch has been imported.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._wanted = not request.function.inits
        self._makers: WeightMakers | None = None
        self._importing = contextlib.ExitStack()

    def imported(self, module: ModuleType) -> None:
        """Take note of a module that has been imported."""
        main = threading.current_thread() is threading.main_thread()
        if self._wanted and module.__name__ == "torch" and self._makers is None and main:
            from tidalctl.tracer.init.weight_makers import WeightMakers

            self._makers = WeightMakers(self._request.root, self._request.function.handler)
            self._importing.enter_context(self._makers.watching())

    def __enter__(self) -> "Discovery":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._importing.close()
        if self._wanted and _any_marked(self._request.root):
            self._makers = None

    def lines(self) -> list[WeightsBuilt]:
        """Return the statements that make the weights that the import has left, those of each module."""
        found = []
        for name, nbytes in self._makers.lines() if self._makers is not None else ():
            module, _, lines = name.partition(":")
            found.append(self._built(name, str(sys.modules[module].__file__), int(lines.partition("-")[0]), nbytes))
        return found

    def of_a_call(self, index: int) -> contextlib.AbstractContextManager[None]:
        """Return a context for a call of the handler for an event: the first one is watched."""
        return self._makers.watching() if self._makers is not None and index == 0 else contextlib.nullcontext()

    def function(self, handler: Handler, event: dict[str, Any]) -> WeightsBuilt | None:
        """Call the handler, and return who makes the weights."""
        with self.of_a_call(0):
            for _ in pieces(called(handler, event, make_context(self._request.function.module, event, self._request.context))):
                pass
        return self.built()

    def built(self) -> WeightsBuilt | None:
        """Return who made the weights in the call that was watched."""
        found = self._makers.function() if self._makers is not None else None
        if found is None:
            return None
        frame, nbytes = found
        if frame is None:
            return WeightsBuilt(name="", file=self._request.function.source, line=0, nbytes=nbytes)
        name = frame.name.removesuffix(".__init__")
        return self._built(f"{frame.module}:{name}", frame.file, frame.first_line, nbytes)

    def _built(self, name: str, file: str, line: int, nbytes: int) -> WeightsBuilt:
        return WeightsBuilt(name=name, file=os.path.relpath(file, self._request.root), line=line, nbytes=nbytes)


def _any_marked(root: str) -> bool:
    """Whether a function or a method at the top of one of the project's modules is marked as init."""
    for module in list(sys.modules.values()):
        if is_own(str(getattr(module, "__file__", None) or ""), root):
            values = list(vars(module).values())
            members = [member for value in values if isinstance(value, type) for member in vars(value).values()]
            if any(isinstance(value, _FUNCTIONS) and "__tidalctl_init__" in vars(value) for value in (*values, *members)):
                return True
    return False
