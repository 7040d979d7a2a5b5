"""Causes that `compile` finds in what it recorded: for a script that can't be made, and for a state that no start may take."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from conftest import Chain, tidalctl, write_project
from safetensors.torch import save_file
from taken import take

from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.compiler.conditions import refusal
from tidalctl.compiler.dynamic.derivation import Planned, plan_program
from tidalctl.compiler.dynamic.recorded_init import EventInit
from tidalctl.compiler.dynamic.slicing import NotSliced
from tidalctl.compiler.snapshot.records import SnapshotReport
from tidalctl.compiler.strategy import Strategy
from tidalctl.function.init_mark import Init
from tidalctl.lineage.loaders import LoaderWatch
from tidalctl.lineage.tape import Tape
from tidalctl.tracer.init.call import record_init

Load = Callable[..., Any]


def recorded(load: Load, number: int, event: dict[str, Any], *more: Any) -> EventInit:
    tape = Tape(number)
    with LoaderWatch(lambda path: None) as watch:
        watch.tape = tape
        made = record_init(Init(load, False), (event, *more), {}, event, tape)
    weights = tuple(weight for weight, _ in made.weights(0))
    return EventInit(event=event, call=made.call, weights=weights, records=tuple(tape.records), opened=())


def planned(load: Load, *events: dict[str, Any], vary: tuple[str, ...] = ("scale", "clip")) -> Planned:
    return plan_program([recorded(load, number, event) for number, event in enumerate(events)], os.getcwd(), vary)


def lacking(load: Load, *events: dict[str, Any], vary: tuple[str, ...] = ("scale", "clip")) -> Reason:
    """Why there is no script."""
    with pytest.raises(NotSliced) as refused:
        planned(load, *events, vary=vary)
    return refused.value.reason


def scaled(event: dict[str, Any]) -> Any:
    weight = torch.ones(2) * event.get("scale", 1.0)
    return {"weight": weight * min(event["clip"], 2.0) if "clip" in event else weight}


def test_what_a_script_lacks_is_told_with_what_would_help() -> None:
    assert lacking(scaled, {}, {"scale": 0.5}) == Cause.FIELD_NOT_SCALAR.of(fields='event["scale"]')
    promise = Cause.VARY_NOT_PROMISED.of(fields='event["scale"]', options="--vary scale")
    assert lacking(scaled, {"scale": 1.0}, {"scale": 0.5}, vary=("clip",)) == promise
    clipped = {"scale": 1.0, "clip": 9.0}, {"scale": 0.5, "clip": 8.0}
    assert lacking(scaled, *clipped, vary=()).text.endswith(" say so with --vary clip --vary scale")
    assert lacking(scaled, *clipped) == Cause.FIELD_WITHOUT_USE.of(fields='event["clip"]')
    given = lacking(scaled, {"scale": 1.0, "clip": 1.5}, {"scale": 0.5, "clip": 8.0})
    assert given.code == Cause.NOT_EXPLAINED.code and "(1.5, 2.0): make it a field of the event" in given.text
    made = planned(scaled, {"scale": 1.0}, {"scale": 0.5})
    assert (made.dynamic, made.program.event_varied) == (("weight",), {"scale": "float"})
    assert planned(scaled, {"scale": 1.0}, {"scale": 0.5}, {"scale": 3}).program.event_varied == {"scale": "number"}


def whole(event: dict[str, Any]) -> Any:
    return {"weight": torch.ones(2) * dict(event)["scale"]}


def branching(event: dict[str, Any]) -> Any:
    weight = torch.ones(2) * event["scale"]
    return {"weight": weight + 1 if event["scale"] > 1 else weight}


def typed(event: dict[str, Any]) -> Any:
    return {"weight": (torch.ones(2) * event["scale"]).to(torch.float64 if event["scale"] > 1 else torch.float16).float()}


def sized(event: dict[str, Any]) -> Any:
    return {"weight": torch.ones(2) * event["scale"], "layers": 2 if event["scale"] > 1 else 1}


def looking(event: dict[str, Any]) -> Any:
    weight = torch.ones(2) * event["scale"]
    return {"weight": weight / weight.sum().item()}


def by_numpy(event: dict[str, Any]) -> Any:
    return {"weight": torch.from_numpy(numpy.ones(2) * event["scale"])}


def drawing(event: dict[str, Any]) -> Any:
    return {"weight": torch.rand(2) * event["scale"]}


@pytest.mark.parametrize(
    ("load", "cause"),
    [
        (whole, Cause.EVENT_READ_WHOLE),
        (branching, Cause.STEPS_DIFFER),
        (typed, Cause.STEPS_DIFFER),
        (sized, Cause.STRUCTURE_DIFFERS),
        (looking, Cause.VALUES_READ),
        (by_numpy, Cause.NOT_IN_A_SCRIPT),
        (drawing, Cause.STEPS_DIFFER),
    ],
)
def test_what_no_list_of_operators_can_do_is_a_cause(load: Load, cause: Cause) -> None:
    assert lacking(load, {"scale": 0.5}, {"scale": 2.0}).code == cause.code


def drawn(event: dict[str, Any], *more: Any) -> Any:
    return {"weight": torch.rand(2)}


def test_an_argument_that_is_not_json_and_a_draw_without_a_seed_are_causes() -> None:
    def told(*more: Any) -> Reason | None:
        return refusal(
            "snapshot", Strategy(kind="snapshot", inits=(recorded(drawn, 0, {}, *more),)), SnapshotReport(outputs=())
        )

    name = Init(drawn, False).name
    assert told(object()) == Cause.ARGUMENTS_NOT_JSON.of(init=name, place="")
    assert told(1) == Cause.UNSEEDED.of(weight="weight", init=name)


KEEPS = """
KEPT = {}
@tidalctl.init(static=True)
def load(event):
    KEPT["state"] = torch.ones(2)
    return KEPT["state"]
def handler(event, context):
    load(event)
"""
SETS = """
SCALE = 1.0
@tidalctl.init(static=True)
def load(event):
    global SCALE
    SCALE = event["scale"]
    return torch.ones(2)
def handler(event, context):
    load(event)
"""


@pytest.mark.parametrize(
    ("source", "cause"),
    [(KEEPS, Cause.STATE_KEPT), (SETS, Cause.GLOBAL_DIFFERS_BY_EVENT)],
)
def test_what_a_script_can_not_make_besides_the_state_is_a_cause(source: str, cause: Cause, tmp_path: Path) -> None:
    report = take(tmp_path, source, {"scale": 0.5}, {"scale": 2.0})
    found = refusal("script", Strategy(kind="script", inits=(recorded(scaled, 0, {}),)), report)
    assert found is not None and found.code == cause.code


GONE = """
import os
import tidalctl
import torch
from safetensors.torch import load_file

@tidalctl.init
def load(event):
    base = load_file("second.safetensors" if os.path.exists("done") else "first.safetensors")
    return {"base": base, "more": [event["n"]] * event["n"]}

def handler(event, context):
    return [float(load(event)["base"]["w"].sum()), event["n"]]
"""


@pytest.mark.slow
def test_tensors_that_init_does_not_make_again_are_no_answers(tmp_path: Path) -> None:
    made = Chain(tmp_path, [{"n": 1}, {"n": 2}])
    write_project(made.project, GONE)
    for name in ("first", "second"):
        save_file({"w": torch.arange(4.0)}, tmp_path / f"{name}.safetensors")
    tidalctl("trace", "project/app.py", "--event", '{"n": 1}', "--event", '{"n": 2}', cwd=tmp_path).ok()
    (tmp_path / "done").touch()
    made.compiled = tidalctl("compile", "app.trace", cwd=tmp_path).ok()
    last = made.manifest["fallbacks"][-1]
    assert (last["strategy"], last["code"]) == ("eager", "not-reproducible"), made.said()
    assert "the tensors that it makes on its way" in last["cause"]
