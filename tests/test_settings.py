"""What torch is set to where init is called: the state in a bundle is that of the traced settings, and of no others."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Chain, python

APP = """
import contextlib
import tidalctl
import torch


@contextlib.contextmanager
def wide():
    torch.set_default_dtype(torch.float64)
    yield


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield


SETTINGS = {
    "": contextlib.nullcontext,
    "dtype": wide,
    "device": lambda: torch.device("meta"),
    "gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "deterministic": deterministic,
}


@tidalctl.init
def load(event):
    weight = torch.nn.Parameter(torch.ones(4, 4) / 3)
    product = weight @ weight
    recorded, product = product.requires_grad, product.detach()
    more = [torch.ones(1) for _ in range(event["more"])]
    fill = torch.utils.deterministic.fill_uninitialized_memory and torch.are_deterministic_algorithms_enabled()
    return {"weight": weight, "product": product, "more": more, "fill": [fill, recorded]}


def handler(event, context):
    with SETTINGS[event["set"]]():
        state = load(event)
    tensors = state["weight"], state["product"], *state["more"]
    return [state["fill"], [[str(t.dtype), t.device.type, t.requires_grad, t.is_inference()] for t in tensors]]
"""
OTHERS = ("dtype", "device", "gradients", "inference", "autocast", "deterministic")


@pytest.mark.parametrize(
    ("strategy", "events", "others"),
    [
        pytest.param("snapshot", [{"more": 1}], ("dtype", "autocast"), id="snapshot"),
        pytest.param("snapshot", [{"more": 1}], OTHERS, marks=pytest.mark.slow, id="snapshot, all"),
        pytest.param("replay", [{"more": 1}, {"more": 2}], OTHERS, marks=pytest.mark.slow, id="replay, all"),
    ],
)
def test_an_event_for_which_the_handler_sets_torch_otherwise_has_its_own_state(
    chain: Callable[..., Chain], strategy: str, events: list[dict[str, Any]], others: tuple[str, ...]
) -> None:
    app = APP.replace('event["more"]', "1") if strategy == "snapshot" else APP
    made = chain(app, *({**event, "set": ""} for event in events))
    assert made.manifest["strategy"] == strategy
    assert made.run({"more": 1, "set": ""})["fallback"] is None
    for name in others:
        event = {"more": 1, "set": name}
        report = made.run(event)
        assert report["output"] == made.plain(event), name
        assert report["fallback"] and "in the trace" in report["fallback"], name


@pytest.mark.slow
def test_what_an_earlier_call_from_the_bundle_has_set_is_no_other_setting(chain: Callable[..., Chain]) -> None:
    built = '    return {"weight"'
    leaves = APP.replace('event["more"]', "1").replace(built, f"    torch.set_default_dtype(torch.float16)\n{built}")
    chained = chain(leaves, {"set": ""})
    script = """
import json, sys, tidalctl
function = tidalctl.load_bundle(sys.argv[1])
print(json.dumps([[function(event), function.template.fallback] for event in json.loads(sys.argv[2])]))
"""
    events = [{"set": name} for name in ("", "", "autocast", "autocast", "dtype", "")]
    told = json.loads(python(script, chained.bundle, json.dumps(events), cwd=chained.folder).ok().out.splitlines()[-1])
    assert [fallback is None for _, fallback in told] == [True, True, False, False, False, True]
    assert told[0] == told[1] == told[5] and told[0][0] == chained.plain(events[0])
