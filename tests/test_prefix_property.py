"""Any function that is split does what it did, for every event."""

import copy
import functools
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefix_cases import Maker, making, outcome

from tidalctl.prefix import NoPrefix, split_init


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    with making(tmp_path_factory.mktemp("apps")) as maker:
        yield maker


NAMES = ("a", "b", "c", "d")
HEADER = """
import torch
LOG = []
STATE = None

def note(*values):
    LOG.append(repr(values))
    return len(LOG)

def fresh(*values):
    LOG.append("fresh")
    return list(values)

def boom(value):
    LOG.append("boom")
    raise RuntimeError(repr(value))

def load(event, other=7):
    global STATE
"""
name = st.sampled_from(NAMES)
number = st.integers(0, 3).map(str)
atom = st.one_of(name, number)
taken = st.sampled_from(
    [
        "event['k']",
        "event['l']",
        "event.get('m', 0)",
        "str(event['k'])",
        "event['l'][0:1]",
        "f\"{event['k']}\"",
        "event['n'] + 1",
    ]
)
value = st.one_of(
    atom,
    st.builds("fresh({}, {})".format, atom, atom),
    st.builds("[{}, {}]".format, name, atom),
    st.builds("note({})".format, atom),
    st.builds("[q for q in (1, 2, {})]".format, atom),
    st.builds("[{} for {} in (1, 2)]".format, name, name),
    st.builds("(lambda: {})".format, name),
    st.builds("(lambda {0}: {0})(3)".format, name),
    st.builds("sum(1 for q in (1, {}))".format, name),
    st.builds("({} := {})".format, name, atom),
    st.builds("helper({})".format, atom),
    taken,
)


def indented(lines: list[str]) -> str:
    return textwrap.indent("\n".join(lines), "    ")


def blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    body = st.lists(inner, min_size=1, max_size=3).map(indented)
    test = st.one_of(atom, taken, st.builds("isinstance({}, list)".format, name))
    return st.one_of(
        st.builds("if {}:\n{}\nelse:\n{}".format, test, body, body),
        st.builds("for {} in (1, {}):\n{}".format, name, atom, body),
        st.builds("with torch.no_grad():\n{}".format, body),
        st.builds("try:\n{}\nexcept RuntimeError as {}:\n{}".format, body, name, body),
        st.builds("try:\n{}\nfinally:\n{}".format, body, body),
        st.builds("def helper(x=1):\n    nonlocal {0}\n    {0} = x\n    return x".format, name),
    )


plain = st.one_of(
    st.builds("{} = {}".format, name, value),
    st.builds("{} = {}".format, name, taken),
    st.builds("{} = {} = {}".format, name, name, value),
    st.builds("{} += {}".format, name, atom),
    st.builds("{}.append({})".format, name, value),
    st.builds("note({}, torch.is_grad_enabled())".format, atom),
    st.builds("STATE = {}".format, value),
    st.builds("note(STATE, {})".format, atom),
    st.builds("del {}".format, name),
    st.builds("import math as {}".format, st.sampled_from(("m", "a"))),
    st.builds("boom({})".format, atom) | st.just("pass"),
    st.builds("if {}: return {}".format, atom, name),
    st.builds("event = {}".format, st.sampled_from(["event", "dict(event)", "event['inner']"])),
)
first = st.builds("{} = {}".format, name, st.sampled_from(["fresh(1)", "[0, fresh()]", "2", "fresh(3)", "event['l']"]))
start = st.permutations(["a = fresh(1)", "b = [fresh()]", "c = 2"]).map(lambda lines: [*lines, "d = a"])
helper = st.builds("def helper(x=1):\n    note('helper')\n    return x, {}".format, name)
statements = st.builds(
    lambda bound, defined, rest: [*bound, *defined, *rest],
    st.one_of(start, start, start, st.lists(first, max_size=3)),
    st.one_of(st.just([]), helper.map(lambda one: [one]), helper.map(lambda one: [one])),
    st.lists(st.one_of(plain, plain, st.recursive(plain, blocks, max_leaves=4)), min_size=1, max_size=8),
)
EVENTS: tuple[Any, ...] = (
    {"k": "v", "l": [1, 2], "n": 1, "inner": {"k": 2, "l": [], "n": 0}},
    {"k": 0, "l": [[]], "m": [5], "n": 2, "inner": {}},
    {"k": "v"},
    {},
)


def plainly(thing: Any, depth: int = 0) -> Any:
    """A result in a form that can be compared: addresses out, which names share an object in."""
    if isinstance(thing, list | tuple) and depth < 6:
        return [type(thing).__name__, *(plainly(one, depth + 1) for one in thing), [[a is b for a in thing] for b in thing]]
    if isinstance(thing, dict) and depth < 6:
        return {key: plainly(one, depth + 1) for key, one in thing.items()}
    if callable(thing):
        try:
            return ["function", thing.__qualname__, plainly(thing(), depth + 1) if depth < 6 else None]
        except Exception as error:  # noqa: BLE001 - compared, whatever it is
            return ["function", type(error), str(error)]
    if isinstance(thing, Exception):
        return [type(thing), str(thing)]
    return repr(thing)


def observed(module: Any, call: Callable[..., Any], event: Any) -> Any:
    module.LOG.clear()
    module.STATE = None
    mine = copy.deepcopy(event)
    result = outcome(lambda: call(mine), module.__file__)
    if result[0] == "gives":
        result = ("gives", plainly(result[1]))
    address = functools.partial(re.sub, r"0x[0-9a-f]+", "0x")
    return (
        address(repr(result)),
        address(repr(mine)),
        [address(one) for one in module.LOG],
        address(repr(plainly(module.STATE))),
    )


splits = 0


@given(body=statements, last=st.lists(name, min_size=1, max_size=3))
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_function_that_is_split_does_what_it_did(make: Maker, body: list[str], last: list[str]) -> None:
    global splits
    text = HEADER + indented([*body, f"return [{', '.join(last)}, event]"]) + "\n"
    try:
        module = make(text)
    except SyntaxError:
        return
    try:
        split = split_init(module.load)
    except NoPrefix:
        return
    splits += 1
    source = text.splitlines()
    assert not any("event" in line for line in source[split.lines[0] - 1 : split.lines[0]])
    for event in EVENTS:
        expected = observed(module, module.load, event)
        got = observed(module, lambda e: split.suffix(split.prefix(), e), event)
        if expected != got:
            # a deferred extraction that raises is the one thing that may come after what is static
            module.LOG.clear()
            raised = outcome(lambda e=event: module.load(copy.deepcopy(e)), module.__file__)
            failed = outcome(split.prefix, module.__file__)
            assert raised[0] == "raises"
            assert raised[1] in (KeyError, TypeError, UnboundLocalError)
            line = source[raised[3][-1][1] - 1]
            assert "event" in line
            assert raised[3][-1][1] < split.lines[1]
            assert expected[0] == got[0] or failed[0] == "raises"


def test_the_search_above_has_split_many() -> None:
    if splits:
        assert splits > 100
