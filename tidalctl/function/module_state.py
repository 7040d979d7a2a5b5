"""Statements at the top of a module as init: their state is what the names that they bind are bound to.

In the module's code (see answered_statements.py) one call of `run` stands for the statements. A provider sees an ordinary static init,
which runs them.
"""

from types import CodeType
from typing import Any

from tidalctl.function.init_mark import Init, answer_init
from tidalctl.function.statements import Statements


def run(
    namespace: dict[str, Any], lines: str, bound: str, defined: str, amid: int, kept: tuple[bool, ...], *parts: CodeType
) -> None:
    """Run statements of the module whose globals are `namespace`, or have their state restored.

    `parts` are their code, in order, of which `kept` tells those that are imports and definitions. `defined` are the names that these
    bind, and `bound` those that the others bind, joined by spaces. `amid` is the line of the first definition that evaluates what an
    earlier statement among them may have made otherwise, or 0. Raises whatever the statements raise.
    """
    statements = Statements(namespace, bound, defined, amid, kept, parts)

    def run_all() -> dict[str, Any]:
        return statements.run()

    run_all.__module__, run_all.__qualname__ = str(namespace["__name__"]), lines
    mark = Init(run_all, static=True)
    mark.statements = statements
    namespace.update(answer_init(mark, (), {}))
