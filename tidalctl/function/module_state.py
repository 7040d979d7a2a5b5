"""Statements at the top of a module as init: their state is what the names that they bind are bound to.

In the module's code (see source_marks.py) one call of `run` stands for the statements. A provider sees an ordinary static init, which
runs them. Where it restores their state instead, imports and definitions among them have to run first: see `Init.prepare`.
"""

import contextlib
from types import CodeType
from typing import Any

from tidalctl.function.init_mark import Init, answer_init


def run(
    namespace: dict[str, Any], lines: str, bound: str, defined: str, amid: int, kept: tuple[bool, ...], *parts: CodeType
) -> None:
    """Run statements of the module whose globals are `namespace`, or have their state restored.

    `parts` are their code, in order, of which `kept` tells those that are imports and definitions. `defined` are the names that these
    bind, and `bound` those that the others bind, joined by spaces. `amid` is the line of the first definition that evaluates what an
    earlier statement among them may have made otherwise, or 0. Raises whatever the statements raise.
    """

    def statements() -> dict[str, Any]:
        for part, keep in zip(parts, kept, strict=True):
            with mark.defining(definitions) if keep and mark.defining is not None else contextlib.nullcontext():
                exec(part, namespace)
        return {name: namespace[name] for name in bound.split() if name in namespace}

    def prepare() -> None:
        for part, keep in zip(parts, kept, strict=True):
            if keep:
                exec(part, namespace)

    module = str(namespace["__name__"])
    statements.__module__, statements.__qualname__ = module, lines
    mark = Init(statements, static=True)
    definitions = frozenset((module, name) for name in defined.split())
    mark.amid = f"{module}:{amid}" if amid else ""
    mark.prepare, mark.binds = prepare, frozenset((module, name) for name in bound.split())
    namespace.update(answer_init(mark, (), {}))
