"""What torch is set to where init is called: the state in a bundle is that of the traced settings, and of no others."""

from collections.abc import Callable

import pytest
from conftest import Chain
from warm import plainly, served

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
    fill = torch.utils.deterministic.fill_uninitialized_memory and torch.are_deterministic_algorithms_enabled()
    return {"weight": weight, "product": product, "fill": [fill, recorded]}


def handler(event, context):
    with SETTINGS[event["set"]]():
        state = load(event)
    tensors = state["weight"], state["product"]
    return [state["fill"], [[str(t.dtype), t.device.type, t.requires_grad, t.is_inference()] for t in tensors]]
"""
OTHERS = ("dtype", "device", "gradients", "inference", "autocast", "deterministic")


SETS = "    torch.set_default_dtype(torch.float16)\n"
FIRST, LAST = "    weight = torch.nn", '    return {"weight"'


@pytest.mark.parametrize(
    ("place", "others"),
    [
        (LAST, ("autocast",)),
        pytest.param(LAST, OTHERS, marks=pytest.mark.slow),
        pytest.param(FIRST, (), marks=pytest.mark.slow),
    ],
    ids=["one", "all", "set before weights are made"],
)
def test_an_event_has_its_own_state_where_the_handler_or_an_earlier_call_of_init_has_set_torch_otherwise(
    place: str, others: tuple[str, ...], chain: Callable[..., Chain]
) -> None:
    made = chain(APP.replace(place, SETS + place), {"set": ""})
    assert made.manifest["strategy"] == "snapshot"
    for name in others:
        event = {"set": name}
        report = made.run(event)
        assert report["output"] == made.plain(event), name
        assert report["cause"] == "setting-differs" and "in the trace" in report["fallback"], name
    events = [{"set": name} for name in ("", "", "autocast")]
    outputs, fallbacks, _ = served(made, *events)
    assert [why and why.code for why in fallbacks] == [None, "setting-differs", "setting-differs"]
    assert outputs == plainly(made, *events)


PRECISE = """
import tidalctl
import torch

@tidalctl.init
def load(event):
    torch.set_float32_matmul_precision("high")
    return torch.ones(2)

def handler(event, context):
    if event.get("tf32"):
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    state = load(event)
    return [state.tolist(), torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.fp32_precision]
"""


@pytest.mark.slow
def test_a_precision_that_is_set_by_backend_is_heeded_and_restored(chain: Callable[..., Chain]) -> None:
    """Torch raises where its older function is asked then."""
    made = chain(PRECISE, {})
    for event in ({}, {"tf32": True}):
        assert made.run(event)["output"] == made.plain(event)
    assert made.run({})["fallback"] is None


def test_each_way_to_set_a_precision_can_be_read_and_set_again() -> None:
    from tidalctl.function.process_settings import _backend, apply_ambient, changed, read_ambient, torch_settings

    before, ways = read_ambient(), (("cuda.matmul", "tf32"), ("mkldnn.matmul", "bf16"), ("", "tf32"))
    try:
        for name, kind in ways:
            _backend(name).fp32_precision = kind
            now, words = read_ambient(), torch_settings()
            apply_ambient(changed(now, before))
            assert read_ambient()["torch.float32_precision"] == before["torch.float32_precision"]
            apply_ambient(changed(read_ambient(), now))
            assert torch_settings() == words != {}
    finally:
        apply_ambient(changed(read_ambient(), before))
