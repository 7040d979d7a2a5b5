"""An init that draws random numbers and drops them moves a generator on: what the handler draws next hangs on where that stood."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Chain
from safetensors.torch import save_file
from warm import plainly, served

HEAD = """
import pathlib
import random
import tidalctl
import torch
from safetensors.torch import load_file
from torch import nn

def built():
    model = nn.Linear(4, 4)
    with torch.no_grad():
        model.weight.copy_(torch.arange(16.0).view(4, 4))
        model.bias.zero_()
    return model
"""

HANDLER = """
def handler(event, context):
    if "seed" in event:
        torch.manual_seed(event["seed"])
        random.seed(event["seed"])
    total = float(sum(parameter.sum() for parameter in load(event)["model"].parameters()))
    return [total, [torch.rand(3).tolist(), random.random()] if "seed" in event else []]
"""

WHOLE = """
@tidalctl.init(static=True)
def load(event):
    return {"model": built()}
"""

FORKED = """
@tidalctl.init(static=True)
def load(event):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = built()
    built()
    return {"model": model}
"""

OF_PYTHON = """
@tidalctl.init(static=True)
def load(event):
    order = [3, 1, 2]
    random.shuffle(order)
    with torch.random.fork_rng():
        return {"model": built()}
"""

ANSWERED = """
@tidalctl.init
def load(event):
    more = [torch.ones(1) for _ in range(event.get("more", 1))]
    model = nn.Linear(4, 4)
    model.load_state_dict(load_file(pathlib.Path(__file__).parent / "model.safetensors"))
    return {"model": model, "more": more}
"""

SCRIPTED = """
@tidalctl.init
def load(event):
    model = built()
    with torch.no_grad():
        model.bias += event.get("scale", 0.5)
    return {"model": model}
"""

FROM_FILES = """
@tidalctl.init(static=True)
def load(event):
    model = nn.Linear(4, 4)
    model.load_state_dict(load_file(pathlib.Path(__file__).parent / "model.safetensors"))
    return {"model": model}
"""

VARY = ("--vary", "scale")
CASES: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "whole": (WHOLE, "snapshot", [{}]),
    "files": (FROM_FILES, "snapshot", [{}]),
    "forked": (FORKED, "snapshot", [{}]),
    "of Python": (OF_PYTHON, "snapshot", [{}]),
    "answered": (ANSWERED, "replay", [{"more": 1}, {"more": 2}]),
    "scripted": (SCRIPTED, "script", [{"scale": 0.25}, {"scale": 1.5}]),
}


@pytest.fixture(autouse=True)
def checkpoint(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    save_file({"weight": torch.ones(4, 4), "bias": torch.ones(4)}, tmp_path / "project" / "model.safetensors")


QUICK = ("files",)  # what keeps this right keeps the others right


@pytest.mark.parametrize("case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES])
def test_where_nobody_seeded_in_the_trace_a_seed_makes_init_run_and_a_later_event_is_served_again(
    case: str, chain: Callable[..., Chain]
) -> None:
    source, strategy, traced = CASES[case]
    made = chain(HEAD + source + HANDLER, *traced, options=VARY if strategy == "script" else ())
    assert made.manifest["strategy"] == strategy
    events = [traced[0], {**traced[-1], "seed": 5}, traced[0], {**traced[-1], "seed": 6}]
    outputs, fallbacks, _ = served(made, *events)
    assert outputs == plainly(made, *events)
    if strategy != "replay":  # which draws as init does
        assert [why and why.code for why in fallbacks] == [None, "generator-differs"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_where_the_trace_was_seeded_other_seeds_are_heeded(case: str, chain: Callable[..., Chain]) -> None:
    source, strategy, events = CASES[case]
    seeded = [{**event, "seed": 5} for event in events]
    made = chain(HEAD + source + HANDLER, *seeded, options=VARY if strategy == "script" else ())
    assert made.manifest["strategy"] == strategy
    for event in ({**events[0], "seed": 5}, {**events[-1], "seed": 6}, events[-1]):
        assert made.run(event)["output"] == made.plain(event), event
