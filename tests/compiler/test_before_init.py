"""What a handler sets before init for one event, and what init leaves where no snapshot looks: other events are answered as plainly."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Chain
from taken import take

from tidalctl.artifacts.cause import Cause, Reason

HEAD = """
import contextvars
import os
import pathlib
import random
import tidalctl
import torch
"""

SETS = """
{before}

@tidalctl.init
def load():
    return torch.ones(4) * {read}

def handler(event, context):
    {write}
    return load().tolist()
"""


def sets(before: str, write: str, read: str) -> str:
    """A function whose handler writes what its init reads."""
    return SETS.format(before=before, write=write, read=read)


CLASS_ATTRIBUTE = sets("class Config: scale = 1.0", 'Config.scale = event["scale"]', "Config.scale")
UNPICKLABLE = sets('CONFIG = {"activation": lambda x: x}', 'CONFIG["scale"] = event["scale"]', 'CONFIG["scale"]')
CONTEXT_VARIABLE = sets('SCALE = contextvars.ContextVar("scale")', 'SCALE.set(event["scale"])', "SCALE.get()")
ELSEWHERE = sets("", 'os.chdir("/")', "2")
VARIABLE_FOR_A_LIBRARY = sets(
    "", 'os.environ["TORCH_HOME"] = "/nowhere/" + str(event["scale"])', "float(pathlib.Path(torch.hub.get_dir()).parent.name)"
)

CLOSURE = """
def handler(event, context):
    scale = event["scale"]

    @tidalctl.init
    def load():
        return torch.ones(4) * scale

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

COUNTING = """
REQUESTS = 0

{marked}
def load():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 2)

def handler(event, context):
    global REQUESTS
    REQUESTS += 1
    return [REQUESTS, load()(torch.full((1, 4), event["scale"])).tolist()]
"""


def set_before(name: str) -> Reason:
    """The cause, which names the remedy."""
    return Cause.GLOBAL_SET_BEFORE_INIT.of(name=name, init="app:load")


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (CLASS_ATTRIBUTE, set_before("app.Config.scale")),
        (UNPICKLABLE, set_before("app.CONFIG")),
        (CONTEXT_VARIABLE, set_before("app.SCALE")),
        (COUNTING.format(marked="@tidalctl.init"), set_before("app.REQUESTS")),
        (CLOSURE, Cause.INIT_IN_CLOSURE.of(init="app:handler.<locals>.load")),
        (ELSEWHERE, Cause.OUTSIDE_PROJECT.of(directory="/", init="app:load")),
    ],
)
def test_what_the_function_did_before_init_may_be_a_cause(
    source: str, cause: Reason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert take(tmp_path, HEAD + source, {"scale": 2.0}).cause == cause


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "cause"), [(VARIABLE_FOR_A_LIBRARY, "variable-set-before-init"), (RESEEDED, None)], ids=["variable", "seeds"]
)
def test_what_it_did_otherwise_than_in_the_trace_is_seen_by_a_start(
    source: str, cause: str | None, chain: Callable[..., Chain]
) -> None:
    made = chain(HEAD + source, {"scale": 2.0})
    assert made.run({"scale": 2.0})["output"] == made.plain({"scale": 2.0})
    report = made.run({"scale": 3.0})
    assert (report["output"], report["cause"]) == (made.plain({"scale": 3.0}), cause)


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
    made = chain(HEAD + COUNTING.format(marked=marked), {"scale": 2.0}, options=options)
    assert made.manifest["strategy"] == "snapshot", made.said()
    report = made.run({"scale": 3.0})
    assert (report["output"], report["fallback"]) == (made.plain({"scale": 3.0}), None)
