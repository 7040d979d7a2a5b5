"""The shape of the house: which rooms may import which, no circle anywhere, and no module too long to hold in the head."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {
    "artifacts": set(),
    "function": {"artifacts"},
    "lineage": {"artifacts"},
    "report": {"artifacts"},
    "plan": {"artifacts"},
    "diff": {"artifacts"},
    "tracer": {"artifacts", "function", "lineage"},
    "compiler": {"artifacts", "function", "lineage", "report"},
    "runtime": {"artifacts", "function", "lineage", "report"},
    "host": {"artifacts", "function", "runtime"},
    "image": {"artifacts", "host", "runtime"},
    "bench": {"artifacts", "function", "report", "runtime"},
    "commands": {"artifacts", "function", "report", "plan", "diff", "tracer", "compiler", "runtime", "host", "image", "bench"},
    "cli": {"artifacts", "commands"},
    "__main__": {"artifacts", "cli", "commands", "runtime"},
    "": {"function", "runtime"},  # tidalctl/__init__.py: the mark of an init, and load_bundle
}
LONGEST = 350


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts if parts[0] == "tidalctl" else ("tidalctl", *parts))
    return name.removesuffix(".__init__")


MODULES = {
    module_name(path): path
    for room in ("tidalctl", "artifacts", "tracer", "compiler")
    for path in sorted((ROOT / room).rglob("*.py"))
}


def imported(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports anywhere: at its top, in functions, and for type checking."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tidalctl":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


ARROWS = {name: {other for other in imported(path) if other != name} for name, path in MODULES.items()}


def room_of(name: str) -> str:
    return [*name.split("."), ""][1]


@pytest.mark.parametrize("room", sorted({room_of(name) for name in MODULES}))
def test_a_room_imports_only_what_stands_below_it(room: str) -> None:
    wrong = {
        f"{name} → {other}"
        for name, others in ARROWS.items()
        if room_of(name) == room
        for other in others
        if other != "tidalctl" and room_of(other) not in ROOMS[room] | {room}
    }
    assert not wrong


def test_no_module_imports_itself_by_way_of_others() -> None:
    below: dict[str, set[str]] = {}
    while ready := [name for name in ARROWS if name not in below and ARROWS[name] - {"tidalctl"} <= below.keys()]:
        below.update((name, ARROWS[name]) for name in ready)
    assert sorted(ARROWS.keys() - below.keys() - {"tidalctl"}) == []


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_short_enough_to_hold_in_the_head(name: str) -> None:
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= LONGEST
