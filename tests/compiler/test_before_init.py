"""What a handler sets before init for one event, and what init leaves where no snapshot looks: other events are answered as plainly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Chain
from taken import take

from tidalctl.artifacts.cause import Cause, Reason

HEAD = """
import contextvars
import json
import os
import pathlib
import random
import tidalctl
import torch
"""

CLASS_ATTRIBUTE = """
class Config:
    scale = 1.0

@tidalctl.init
def load():
    return torch.ones(4) * Config.scale

def handler(event, context):
    Config.scale = event["scale"]
    return load().tolist()
"""

UNPICKLABLE_GLOBAL = """
CONFIG = {"activation": lambda x: x, "scale": 1.0}

@tidalctl.init
def load():
    return torch.ones(4) * CONFIG["scale"]

def handler(event, context):
    CONFIG["scale"] = event["scale"]
    return load().tolist()
"""

CONTEXT_VARIABLE = """
SCALE = contextvars.ContextVar("scale")

@tidalctl.init
def load():
    return torch.ones(4) * SCALE.get()

def handler(event, context):
    SCALE.set(event["scale"])
    return load().tolist()
"""

CLOSURE = """
def handler(event, context):
    scale = event["scale"]

    @tidalctl.init
    def load():
        return torch.ones(4) * scale

    return load().tolist()
"""

DIRECTORY = """
HERE = pathlib.Path(__file__).parent

@tidalctl.init
def load():
    return torch.ones(4) * json.loads(pathlib.Path("scale.json").read_text())

def handler(event, context):
    os.chdir(HERE / str(int(event["scale"])))
    return load().tolist()
"""

VARIABLE_FOR_A_LIBRARY = """
@tidalctl.init
def load():
    return torch.ones(4) * float(pathlib.Path(torch.hub.get_dir()).parent.name)

def handler(event, context):
    if event["scale"] != 3.0:
        os.environ["TORCH_HOME"] = f"/nowhere/{event['scale']}"
    else:
        os.environ["TORCH_HOME"] = "/nowhere/7"
    return load().tolist()
"""

RESEEDED = """
@tidalctl.init
def load(event):
    model = torch.nn.Linear(2, 2)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    torch.manual_seed(0)
    random.seed(0)
    return model

def handler(event, context):
    seed = 0 if event["scale"] == 2.0 else 5
    torch.manual_seed(seed)
    random.seed(seed)
    load(event)
    return [torch.rand(2).tolist(), random.random()]
"""

CASES = {name.lower(): source for name, source in list(globals().items()) if name.isupper() and name != "HEAD"}
DIFFERS = {"directory": "directory-differs", "variable_for_a_library": "variable-set-before-init"}
QUICK = ("class_attribute",)  # what keeps this right keeps the others right


@pytest.mark.parametrize("case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES])
def test_an_event_that_was_not_traced_is_answered_as_plainly(case: str, chain: Callable[..., Chain]) -> None:
    files = {"app.py": HEAD + CASES[case], "2/scale.json": "2.0", "3/scale.json": "3.0"}
    made = chain(files, {"scale": 2.0})
    for scale in (2.0, 3.0):
        event: dict[str, Any] = {"scale": scale}
        report = made.run(event)
        assert report["output"] == made.plain(event), event
    if case in DIFFERS:
        assert report["cause"] == DIFFERS[case]


ELSEWHERE = """
@tidalctl.init
def load():
    return torch.ones(4)

def handler(event, context):
    os.chdir("/")
    return load().tolist()
"""


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (CLASS_ATTRIBUTE, Cause.GLOBAL_SET_BEFORE_INIT.of(name="app.Config.scale", init="app:load")),
        (CLOSURE, Cause.INIT_IN_CLOSURE.of(init="app:handler.<locals>.load")),
        (ELSEWHERE, Cause.OUTSIDE_PROJECT.of(directory="/", init="app:load")),
    ],
)
def test_what_the_function_did_before_init_may_be_a_cause(
    source: str, cause: Reason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert take(tmp_path, HEAD + source, {"scale": 2.0}).cause == cause


NOTHING_STATIC = """
@tidalctl.init
def load(event):
    given = torch.tensor(event["xs"])
    return {"ones": torch.ones(2) * 2, "given": given}

def handler(event, context):
    state = load(event)
    return [state["ones"].tolist(), state["given"].tolist()]
"""


def test_where_nothing_can_be_kept_the_cause_is_that_and_not_a_bundle_that_failed(chain: Callable[..., Chain]) -> None:
    made = chain(HEAD + NOTHING_STATIC, {"xs": [1.0]}, {"xs": [1.0, 2.0]})
    assert made.manifest["strategy"] == "eager"
    assert made.manifest["fallbacks"][-1]["code"] == "nothing-static"
    assert "the proof" not in made.said(), made.said()
    assert "the snapshot answers" not in made.said(), "there is none"
    event = {"xs": [3.0]}
    assert made.run(event)["output"] == made.plain(event)


COUNTING = """
REQUESTS = 0

{marked}
def load():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 2)

def handler(event, context):
    global REQUESTS
    REQUESTS += 1
    return [REQUESTS, load()(torch.full((1, 4), event["x"])).tolist()]
"""


def test_a_global_set_before_an_init_without_a_promise_is_a_cause_that_names_the_remedy(chain: Callable[..., Chain]) -> None:
    made = chain(HEAD + COUNTING.format(marked="@tidalctl.init"), {"x": 2.0})
    assert made.manifest["strategy"] == "eager"
    assert made.manifest["fallbacks"][0]["code"] == "global-set-before-init"
    assert "app.REQUESTS is set before app:load is called" in made.said() and "static=True" in made.said(), made.said()
    assert made.run({"x": 3.0})["output"] == made.plain({"x": 3.0})


@pytest.mark.parametrize(
    ("marked", "options"),
    [
        pytest.param("@tidalctl.init(static=True)", (), id="by the mark", marks=pytest.mark.slow),
        pytest.param("", ("--init", "app:load", "--static"), id="by name"),
    ],
)
def test_a_static_init_is_believed_not_to_look_at_what_the_handler_has_set(
    marked: str, options: tuple[str, ...], chain: Callable[..., Chain]
) -> None:
    made = chain(HEAD + COUNTING.format(marked=marked), {"x": 2.0}, options=options)
    assert made.manifest["strategy"] == "snapshot", made.said()
    report = made.run({"x": 3.0})
    assert (report["output"], report["fallback"]) == (made.plain({"x": 3.0}), None)
