"""An object that init fills and that other code holds since before: a start from the bundle fills it and puts no other in its place."""

import collections
from collections.abc import Callable
from typing import Any

from conftest import Chain
from hypothesis import given
from hypothesis import strategies as st

from tidalctl.artifacts.state.contents import contents_of, restore_contents
from tidalctl.artifacts.state.pickling_loss import order_loss

HOLDERS = """
import tidalctl
import torch

MODEL, TABLE, SEEN = torch.nn.Linear(2, 1), {}, []

def scorer(model):
    return lambda x: model(x).tolist()

ROUTES = {"score": scorer(MODEL)}

class Predictor(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.scale = 1.0

    def handle(self, event, context):
        table, seen = TABLE, SEEN
        model = load()
        held = [self.scale, table.get("scale"), len(seen), table is TABLE, model["table"] is TABLE]
        with torch.no_grad():
            scores = [ROUTES["score"](torch.ones(2)), self.layer(torch.ones(2)).tolist(), model["predictor"] is self is predictor]
        return [scores, held] if event["x"] > 1 else scores

predictor = Predictor()
handler = predictor.handle

@tidalctl.init(static=True)
def load():
    TABLE["scale"] = 3.0
    SEEN.append(1)
    predictor.scale = 5.0
    with torch.no_grad():
        for layer in (MODEL, predictor.layer):
            layer.weight.fill_(2.0)
            layer.bias.fill_(0.5)
    return {"predictor": predictor, "table": TABLE}
"""


def test_objects_that_init_fills_stay_those_that_globals_a_closure_and_the_handler_hold(chain: Callable[..., Chain]) -> None:
    made = chain(HOLDERS, {"x": 1})
    assert made.manifest["strategy"] == "snapshot", made.said()
    report = made.run({"x": 2})
    assert (report["output"], report["fallback"]) == (made.plain({"x": 2}), None)


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
        restore_contents(now, contents_of(value))
        assert now == value
        assert list(now) == list(value), "in order"
        what = contents_of(value)
        value["another"] = 2
        restore_contents(now, what)
        assert now == kind(held), "contents are a copy"
    for kind in (list, set, collections.deque):
        value, now = kind(items), kind(others)
        if (what := contents_of(value)) is None:
            assert order_loss(value), "a set whose order would be another"
            continue
        restore_contents(now, what)
        assert list(now) == list(value), "in order"
    one, two = Plain(), Plain()
    vars(one).update(held)
    vars(two).update(other)
    restore_contents(two, contents_of(one))
    assert vars(two) == vars(one)


def test_what_is_kept_in_a_way_of_its_own_is_not_filled() -> None:
    for value in (WithSlots(), OfItsOwn(), 1, "a", (), Plain, len, collections.ChainMap()):
        assert contents_of(value) is None or isinstance(value, collections.ChainMap)
