"""What init writes to the event the handler finds there: a start that leaves init out would leave that out, too, so that init runs."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Chain
from warm import plainly, served

from tidalctl.artifacts.trace.records import InitCall
from tidalctl.function.init_mark import Init
from tidalctl.lineage.loaders import LoaderWatch
from tidalctl.lineage.tape import Tape
from tidalctl.tracer.init.call import record_init

APP = """
import torch
import tidalctl


@tidalctl.init
def load(event, *more):
    base = torch.ones(2)
    {write}
    return {{"weight": base}}


def handler(event, context):
    options = {{"seen": 0}}
    state = load(event{more})
    return [state["weight"].tolist(), list(event.items()), options]
"""
MARKED_STATIC = APP.replace("@tidalctl.init", "@tidalctl.init(static=True)")
CASES = {
    "a default": (APP, 'event.setdefault("n", 3)', "", [{"x": 1}], [{"x": 1}, {"x": 2}, {"n": 4}, {}]),
    "a part of it": (APP, 'event["of"]["n"] = event["x"]', "", [{"x": 1, "of": {}}], [{"x": 1, "of": {}}, {"x": 2, "of": {"n": 9}}]),
    "of two events": (MARKED_STATIC, 'event["n"] = 1', "", [{"x": 1}, {"x": 2}], [{"x": 1}, {"x": 3}]),
    "another argument": (APP, 'more[0]["seen"] += 1', ", options", [{}], [{}, {"x": 1}]),
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [case if case == "a default" else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_what_init_writes_to_its_arguments_is_written_in_a_start_from_the_bundle_too(
    case: str, chain: Callable[..., Chain]
) -> None:
    app, write, more, traced, asked = CASES[case]
    made = chain(app.format(write=write, more=more), *traced)
    what = "an argument" if more else "the event"
    assert f"load writes to {what}" in made.said() and made.manifest["fallbacks"][0]["code"] == "argument-written"
    assert made.manifest["strategy"] in ("replay", "eager")
    outputs, fallbacks, _ = served(made, *asked)
    assert outputs == plainly(made, *asked)
    assert all(f"load writes to {what}" in why.text for why in fallbacks if why is not None)


def recorded(load: Callable[..., Any], event: dict[str, Any], *more: Any) -> InitCall:
    tape = Tape(0)
    with LoaderWatch(lambda path: None) as watch:
        watch.tape = tape
        return record_init(Init(load, False), (event, *more), {}, event, tape).call


def renamed(event: dict[str, Any]) -> None:
    event["y"] = event.pop("x")


def reordered(event: dict[str, Any]) -> None:
    event["x"] = event.pop("x")


WRITES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda event: event.update(y=1), "the event"),
    (lambda event: event.clear(), "the event"),
    (lambda event: event["of"].append(3), "the event"),
    (lambda event: event.update(model=torch.ones(1)), "the event"),
    (renamed, "the event"),
    (reordered, "the event"),
    (lambda event: event.setdefault("x", 9), ""),
    (lambda event: event.pop("gone", None), ""),
    (lambda event: dict(event).clear(), ""),
    (lambda event: copy.deepcopy(event)["of"].append(3), ""),
]


@pytest.mark.parametrize(("write", "what"), WRITES)
def test_a_write_to_the_event_reaches_the_event_and_is_noted(write: Callable[[dict[str, Any]], Any], what: str) -> None:
    def load(event: dict[str, Any]) -> torch.Tensor:
        write(event)
        return torch.ones(1)

    plainly, event = {"x": 1, "of": [2]}, {"x": 1, "of": [2]}
    load(plainly)
    assert recorded(load, event).writes == what
    assert repr(event) == repr(plainly)


def test_an_event_is_as_it_was_where_init_is_called_again_without_the_probe() -> None:
    def load(event: dict[str, Any]) -> torch.Tensor:
        event["x"] += 1
        event["of"].append(event["x"])
        assert type(event) is dict, "no probe, please"
        return torch.full((1,), event["x"])

    event: dict[str, Any] = {"x": 1, "of": []}
    call = recorded(load, event)
    assert (call.writes, call.event_whole) == ("the event", True)
    assert event == {"x": 2, "of": [2]}


def test_how_init_was_called_is_what_it_was_before_init_changed_it() -> None:
    def load(event: dict[str, Any], options: dict[str, int]) -> torch.Tensor:
        options["n"] += 1
        return torch.ones(1)

    first, later = recorded(load, {}, {"n": 0}), recorded(load, {}, {"n": 1})
    assert first.arguments != later.arguments
    assert first.writes == later.writes == "an argument"
