"""An object that init fills and that other code holds since before: a start from the bundle fills it and puts no other in its place."""

import collections
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Chain
from hypothesis import given
from hypothesis import strategies as st

from tidalctl.artifacts.dropped import order_lost
from tidalctl.artifacts.filled import contents, fill
from tidalctl.compiler.holders import held_elsewhere
from tidalctl.compiler.module_state import ModuleState

SERVICE = """
import tidalctl
import torch

TABLE, SEEN = {}, []

class Service:
    def __init__(self):
        self.scale = 1.0

    def handle(self, event, context):
        table, seen = TABLE, SEEN
        model = load()
        more = [self.scale, table.get("scale"), len(seen), table is TABLE, model["table"] is TABLE]
        return more if event["x"] > 1 else model["weight"].tolist()

service = Service()
handler = service.handle

@tidalctl.init
def load():
    TABLE["scale"] = 3.0
    SEEN.append(1)
    service.scale = 5.0
    return {"weight": torch.ones(2), "table": TABLE}
"""


def test_objects_that_init_fills_stay_the_objects_that_others_hold(chain: Callable[..., Chain]) -> None:
    made = chain(SERVICE, {"x": 1})
    assert made.manifest["strategy"] == "snapshot", made.said()
    for x in (1, 2):
        report = made.run({"x": x})
        assert report["fallback"] is None
        assert report["output"] == made.plain({"x": x})


class Plain:
    pass


class WithSlots:
    __slots__ = ("a",)


class OfItsOwn:
    def __getstate__(self) -> dict[str, Any]:
        return {}


ITEMS = st.lists(st.integers(), max_size=5)
PAIRS = st.dictionaries(st.text(max_size=3), st.integers(), max_size=5)


@given(PAIRS, PAIRS, ITEMS, ITEMS)
def test_filling_gives_back_what_was_held(held: Any, other: Any, items: list[int], others: list[int]) -> None:
    for kind in (dict, collections.OrderedDict, collections.Counter):
        value, now = kind(held), kind(other)
        fill(now, contents(value))
        assert now == value
        assert list(now) == list(value), "in order"
    for kind in (list, set, collections.deque):
        value, now = kind(items), kind(others)
        if (what := contents(value)) is None:
            assert order_lost(value), "a set whose order would be another"
            continue
        fill(now, what)
        assert list(now) == list(value), "in order"
    one, two = Plain(), Plain()
    vars(one).update(held)
    vars(two).update(other)
    fill(two, contents(one))
    assert vars(two) == vars(one)


def test_what_is_kept_in_a_way_of_its_own_is_not_filled() -> None:
    for value in (WithSlots(), OfItsOwn(), 1, "a", (), Plain, len, collections.ChainMap()):
        assert contents(value) is None or isinstance(value, collections.ChainMap)


def test_contents_are_a_copy() -> None:
    value = {"a": 1}
    held = contents(value)
    value["a"] = 2
    assert held == {"a": 1}


HELD = {
    "a_module_in_a_closure": (
        "MODEL = torch.nn.Linear(2, 1)\nROUTES = {{'score': scorer(MODEL)}}",
        "MODEL.weight.data.fill_(1)",
    ),
    "an_inner_dict_by_its_method": ("CONFIG = {{'vocab': {{}}}}\nlookup = [CONFIG['vocab'].get]", "CONFIG['vocab']['a'] = 1"),
    "a_dict_of_its_own_class": ("REG = Registry()\nlookup = [REG.get]", "REG['a'] = 1"),
    "what_is_held_weakly": ("REG = Registry()\nweak = weakref.ref(REG)", "REG['a'] = 1"),
}
FREE = {
    "a_module": ("MODEL = torch.nn.Linear(2, 1)", "MODEL.weight.data.fill_(1)"),
    "an_inner_dict": ("CONFIG = {{'vocab': {{}}}}", "CONFIG['vocab']['a'] = 1"),
    "an_inner_list_of_an_object": ("S = Plain()\nS.names = []", "S.names.append(1)"),
    "one_in_two_globals": ("A = Registry()\nB = [A]", "A['a'] = 1"),
}
PROJECT = """
import weakref
import torch
class Registry(dict):
    pass
class Plain:
    pass
def scorer(model):
    return lambda x: model(x)
{made}
def init():
    {change}
"""


@pytest.mark.parametrize("case", [*HELD, *FREE])
def test_what_something_else_holds_is_not_made_anew(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, change = (HELD | FREE)[case]
    (tmp_path / f"held_{case}.py").write_text(PROJECT.format(made=made.format(), change=change), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    project = importlib.import_module(f"held_{case}")
    modules = ModuleState(str(tmp_path))
    project.init()
    assert held_elsewhere(modules, modules.kept(), {}).partition(".")[0] == (f"held_{case}" if case in HELD else "")
    del sys.modules[f"held_{case}"]
