"""Where an init looks at the clock: what it makes of that stays as it is when the bundle is compiled, and no second run may tell."""

import ast
from pathlib import Path

CLOCKS = (
    *(f"time.{name}" for name in ("time", "time_ns", "localtime", "gmtime", "strftime", "ctime")),
    *(f"datetime.{name}" for name in ("now", "utcnow", "today")),
    "date.today",
)


def clock_reads(source: Path, init: str) -> list[tuple[int, str]]:
    """Line and text of each call of a clock in a function of a module, and in the module's functions that it calls.

    By the names that such calls usually have. Nothing where the source can't be read. `init` is a qualified name.
    """
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    functions: dict[str, ast.AST] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            functions.setdefault(node.name, node)
    found: set[tuple[int, str]] = set()
    waiting, seen = [init.rpartition(".")[2]], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        for node in ast.walk(functions[name]):
            if isinstance(node, ast.Call):
                text = ast.unparse(node.func)
                waiting.append(text.rpartition(".")[2])
                if ".".join(text.split(".")[-2:]) in CLOCKS:
                    found.add((node.lineno, text))
    return sorted(found)
