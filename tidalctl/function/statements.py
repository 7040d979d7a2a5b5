"""Statements at the top of a module whose state is restored: what they bind, and their code, of which imports and definitions run."""

import contextlib
from collections.abc import Callable
from types import CodeType
from typing import Any

Global = tuple[str, str]  # module and name


class Statements:
    """The statements that stand for an init: see module_state.py.

    Attributes:
        bound: The globals that the statements bind, but for those of imports and definitions: they are bound to parts of the state.
        defined: Those that the imports and definitions bind.
        amid: The place of a definition among them that another statement above it may change, as module and line; empty where none may.
        defining: Gives a context in which each import and definition runs while all of the statements do; None where nobody watches.
    """

    def __init__(
        self,
        namespace: dict[str, Any],
        bound: str,
        defined: str,
        amid: int,
        kept: tuple[bool, ...],
        parts: tuple[CodeType, ...],
    ) -> None:
        module = str(namespace["__name__"])
        self.bound = frozenset((module, name) for name in bound.split())
        self.defined = frozenset((module, name) for name in defined.split())
        self.amid = f"{module}:{amid}" if amid else ""
        self.defining: Callable[[frozenset[Global]], contextlib.AbstractContextManager[None]] | None = None
        self._namespace = namespace
        self._parts = list(zip(parts, kept, strict=True))

    def run(self) -> dict[str, Any]:
        """Run all of them, and return their state."""
        for part, keep in self._parts:
            with self.defining(self.defined) if keep and self.defining is not None else contextlib.nullcontext():
                exec(part, self._namespace)
        return {name: self._namespace[name] for _, name in sorted(self.bound) if name in self._namespace}

    def define(self) -> None:
        """Run the imports and definitions alone: what a state that is restored next may refer to."""
        for part, keep in self._parts:
            if keep:
                exec(part, self._namespace)
