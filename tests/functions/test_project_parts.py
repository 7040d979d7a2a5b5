"""The parts on which a moved bundle rests, on random inputs in this process: paths that count by their place, variables that pin it,
and globals that init changes."""

import contextlib
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import strategies as st
from many_examples import MANY, on_examples, trace_of

from tidalctl.artifacts.bundle.manifest import Guard
from tidalctl.artifacts.project import is_own
from tidalctl.artifacts.state.slots import Slot
from tidalctl.compiler.side_effects.project_globals import ProjectGlobals
from tidalctl.compiler.variables import environ_reads, variables_warning, with_variables
from tidalctl.function.event_probe import arguments_digest
from tidalctl.function.working_environment import Surroundings
from tidalctl.runtime.conditions import environ_mismatches, variables_mismatch
from tidalctl.tracer.process.clock import TraceClock
from tidalctl.tracer.process.environment import EnvironRecorder

# -- paths: what was called with paths of the project counts alike wherever a copy of it lies, and anything else does not

ROOTS = st.lists(st.sampled_from(["app", "srv", "a.b", "x+y", "my app", "ünï", "-", "b(1)"]), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)
TEXTS = st.sampled_from(
    [
        *("{root}", "{root}/", "{root}/model", "--config={root}/a.json", "{root}/a:{root}/b", "{root}:/usr/lib", "x {root}/y"),
        *("model", "", "/other", "/other{root}", "{root}s", "{root}-2/model", "{root}.bak", "a{root}", "{{}}"),
    ]
)
# of these no copy's own place may make anything: they count as they are
OUTSIDE = ("/other{root}", "{root}s", "{root}-2/model", "{root}.bak", "a{root}")
LEAVES = st.one_of(TEXTS, st.integers(-2, 2), st.booleans(), st.none(), TEXTS.map(lambda text: PurePosixPath(text or ".")))
VALUES = st.recursive(
    LEAVES.filter(lambda leaf: not isinstance(leaf, PurePosixPath)),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
CALLS = st.tuples(st.lists(LEAVES | VALUES, max_size=3), st.dictionaries(st.sampled_from("kw"), LEAVES | VALUES, max_size=2))


def at(root: str, value: Any) -> Any:
    """A value with the project at a place. A text that is none of the project's is the same wherever that is."""
    if isinstance(value, PurePosixPath):
        return PurePosixPath(at(root, str(value)))
    if isinstance(value, str):
        return value.format(root="/first" if value in OUTSIDE else root)
    if isinstance(value, list | tuple):
        return type(value)(at(root, item) for item in value)
    return {key: at(root, item) for key, item in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("count", [1000, MANY])
def test_arguments_count_alike_where_they_name_the_same_of_the_project_and_only_there(count: int) -> None:
    def check(example: tuple[str, str, Any, Any]) -> None:
        home, away, call, other = example

        def digest(root: str, made: Any) -> str | None:
            return arguments_digest({"event": 1}, *at(root, made), [root])

        assert digest(home, call) == digest(away, call) is not None
        same = repr(at("/first", call)) == repr(at("/first", other))
        assert (digest(home, call) == digest(away, other)) is same
        for name in ("app.py", "in/x.json"):
            assert is_own(f"{home}/{name}", home) and not is_own(f"{home}2/{name}", home)
            assert not is_own(f"{home}/site-packages/{name}", home)

    on_examples(count, st.tuples(ROOTS, ROOTS, CALLS, CALLS), check)


# -- variables: where none that was read has changed, the state is what the program makes; where one has, a start sees it

VARIABLES = ("PART_A", "PART_B")
ENVIRONMENTS = st.dictionaries(st.sampled_from(VARIABLES), st.sampled_from(["1", "2", "{root}/x"]))
STATEMENTS = (
    *("seen.append(os.environ.get('{name}'))", "seen.append(os.getenv('{name}', 'd'))", "seen.append('{name}' in os.environ)"),
    *("os.environ.setdefault('{name}', 'd')", "os.environ['{name}'] = 's'", "os.environ.pop('{name}', None)"),
    *("os.environ.update({name}='u')", "seen.append(os.environb.get(b'{name}'))", "seen.append(os.path.expandvars('${name}'))"),
    *("seen.append(dict(os.environ).get('{name}'))", "seen.append(os.environ.setdefault('{name}', 'e'))"),
    *("seen.append(os.environ.copy().get('{name}'))", "seen.append({{**os.environ}}.get('{name}'))", "pass"),
    *("if '{name}' not in os.environ: os.environ['{name}'] = 'f'", "seen.append([n for n in os.environ if n == '{name}'])"),
)  # fmt: skip
PROGRAMS = st.fixed_dictionaries(
    {
        phase: st.lists(st.tuples(st.sampled_from(STATEMENTS), st.sampled_from(VARIABLES)), max_size=3)
        for phase in ("import", "init", "handler")
    }
)


def part_of(program: dict[str, Any], phase: str, seen: list[Any], root: str) -> None:
    """Run the statements of one phase, as a file of the project."""
    text = "\n".join(["import os", *(statement.format(name=name) for statement, name in program[phase])])
    exec(compile(text, f"{root}/app.py", "exec"), {"seen": seen})


@contextlib.contextmanager
def variables(chosen: dict[str, str], root: str) -> Iterator[None]:
    with mock.patch.dict(os.environ):
        for name in VARIABLES:
            os.environ.pop(name, None)
        os.environ.update({name: value.format(root=root) for name, value in chosen.items()})
        yield


@pytest.mark.parametrize("count", [500, MANY])
def test_a_state_that_a_variable_made_is_not_used_where_the_variable_has_another_value(count: int) -> None:
    served = 0

    def check(example: tuple[Any, dict[str, str], dict[str, str]]) -> None:
        nonlocal served
        program, before, after = example
        root = "/project/x"
        clock, seen = TraceClock(), []
        with variables(before, root), EnvironRecorder(clock, root) as recorder:
            part_of(program, "import", seen, root)
            recorder.init_called()
            with clock.entering("init"):
                part_of(program, "init", seen, root)
            with clock.entering("handler"):
                part_of(program, "handler", [], root)
            reads = recorder.reads()
        trace = with_variables(trace_of(Path(root), reads), (), ())
        found = environ_reads(trace)
        manifest: Any = SimpleNamespace(
            init="app:load", guard=Guard(True, environ=found.variables, environ_at_init=found.at_init)
        )
        for chosen in (before, after):
            state: list[Any] = []
            with variables(chosen, root):
                reason = next(environ_mismatches(manifest), None)
                at_start = Surroundings()
                part_of(program, "import", state, root)
                reason = reason or variables_mismatch(manifest, at_start, [root])
                part_of(program, "init", state, root)
            assert reason is None or chosen != before, reason
            if reason is None and chosen != before:
                served += 1
                assert state == seen or variables_warning(trace), (found, state, seen)
            changed = {name for name in VARIABLES if before.get(name) != chosen.get(name)}
            assert (reason is not None) is not changed.isdisjoint(found.variables)

    on_examples(count, st.tuples(PROGRAMS, ENVIRONMENTS, ENVIRONMENTS), check)
    assert served > count / 10


# -- globals: what init changed is seen, and what it left alone is not

SIMPLE = st.recursive(
    st.one_of(st.integers(0, 2), st.sampled_from(["s", "t"]), st.none(), st.integers(0, 2).map(lambda n: {"tensor": n})),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xy"), inner, max_size=2),
    max_leaves=4,
)
SLOTS = ("A", "B", "Kind.one", "Kind.Inner.two")
CHANGES = st.lists(
    st.tuples(st.sampled_from(["bind", "fill", "write", "rebind same"]), st.sampled_from(SLOTS), SIMPLE), max_size=3
)


def built(value: Any) -> Any:
    """A value with tensors where the drawn one has their numbers."""
    if isinstance(value, dict) and set(value) == {"tensor"}:
        return torch.full((2,), float(value["tensor"]))
    if isinstance(value, list):
        return [built(item) for item in value]
    return {key: built(item) for key, item in value.items()} if isinstance(value, dict) else value


def plain(value: Any) -> Any:
    """A value with the numbers of tensors in place of them, to compare by."""
    if isinstance(value, torch.Tensor):
        return {"tensor": value.tolist()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def change(kind: str, owner: Any, name: str, value: Any) -> None:
    """Change a global or a class attribute as an init may."""
    held = getattr(owner, name)
    if kind == "fill" and isinstance(held, list):
        held.append(built(value))
    elif kind == "fill" and isinstance(held, dict):
        held["z"] = built(value)
    elif kind == "write" and isinstance(held, torch.Tensor):
        held.mul_(2).add_(1)
    elif kind in ("bind", "rebind same"):
        setattr(owner, name, built(value) if kind == "bind" else held)


@pytest.mark.parametrize("count", [250, MANY])
def test_globals_that_init_changed_are_seen_and_no_others(tmp_path: Path, count: int) -> None:
    def check(example: tuple[list[Any], list[tuple[str, str, Any]]]) -> None:
        values, changes = example
        module: Any = types.ModuleType("part_of_a_project")
        module.__file__ = str(tmp_path / "part_of_a_project.py")
        exec("class Kind:\n    class Inner:\n        pass\ndef function(): pass\nlocked = lambda: 1", vars(module))
        owners = {"A": module, "B": module, "Kind.one": module.Kind, "Kind.Inner.two": module.Kind.Inner}
        for place, value in zip(SLOTS, values, strict=True):
            setattr(owners[place], place.rpartition(".")[2], built(value))

        def shown() -> dict[str, Any]:
            return {place: plain(getattr(owner, place.rpartition(".")[2])) for place, owner in owners.items()}

        with mock.patch.dict(sys.modules, {module.__name__: module}):
            before, noted = shown(), ProjectGlobals(str(tmp_path))
            assert noted.changed() == {}
            for kind, place, value in changes:
                change(kind, owners[place], place.rpartition(".")[2], value)
            module.new = 1
            after = shown()
            changed = {".".join(filter(None, slot[1:])) for slot in noted.changed()}
            assert changed == {place for place in SLOTS if before[place] != after[place]} | {"new"}
            assert noted.deleted() is None
            del module.Kind.one
            assert noted.deleted() == Slot(module.__name__, "Kind", "one")

    on_examples(count, st.tuples(st.lists(SIMPLE, min_size=4, max_size=4), CHANGES), check)
