"""Functions without modules: they compute while their weights are on the way, as plainly, and nothing of that stays on the path."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Chain, chained, flip_bit, python
from streams import SLOW_LOAD, slowly

LAYERS, STEP = 12, 0.1  # seconds that each layer takes to compute
FREE = f"""
import time
from dataclasses import dataclass

import torch
import tidalctl


@dataclass
class State:
    layers: list
    head: torch.Tensor
    spare: torch.Tensor  # no trace sees a use of it


@tidalctl.init(static=True)
def load(event):
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(64, 64, generator=generator) / 8 for _ in range({LAYERS})]
    return State(layers, torch.randn(64, 97, generator=generator), torch.randn(64, 97, generator=generator))


@torch.inference_mode()
def handler(event, context):
    state = load(event)
    x = torch.ones(1, 64)
    for _ in range(event.get("tokens", 2)):
        for layer in state.layers:
            time.sleep(event.get("step", 0.0))
            x = torch.tanh(x @ layer)
        if event.get("overwrite"):
            state.head[3] = 0.5
        if event.get("raise"):
            raise KeyError("as asked")
        head = state.spare if event.get("spare") else state.head
        yield [x.numpy().tolist()[0][:4], (x @ head).argmax().item(), head[0, :2].tolist(), state.head[3, :2].tolist()]
"""


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A function whose state is a dataclass of tensors, traced and compiled. Nobody may change it."""
    return chained(tmp_path_factory.mktemp("free"), FREE)


# -- whole runs


START = """
answer = next(function(json.loads(sys.argv[3])))
print(json.dumps([answer, time.monotonic() - begin, len(function.template.weights.engine.stalls)]))
"""


def test_loading_hides_behind_compute_though_no_module_owns_a_weight(free: Chain) -> None:
    event, computing = {"step": STEP, "tokens": 1}, LAYERS * STEP
    loading = 1.5 * computing
    pace = (free.bundle / "weights.safetensors").stat().st_size / loading
    answer, seconds, stalls = python(SLOW_LOAD + START, free.bundle, pace, json.dumps(event), cwd=free.folder).report
    assert [answer] == free.plain(event)
    assert stalls > 1, "it has begun before all was there"
    assert seconds < loading + 0.6 * computing, "the one after the other would be all of both"


@pytest.mark.parametrize(
    ("event", "seconds"), [({"overwrite": True}, 0.01), ({"overwrite": True, "spare": True}, 4.0)], ids=str
)
def test_it_answers_as_plainly(free: Chain, event: dict[str, Any], seconds: float) -> None:
    before = (free.bundle / "weights.safetensors").read_bytes()
    report = slowly(free.bundle, event, seconds).report
    assert report["output"] == free.plain(event)
    assert (free.bundle / "weights.safetensors").read_bytes() == before
    if event.get("spare"):
        assert report["weight_misses"] > 0


def test_a_weight_that_differs_is_one_error_and_no_number_leaves(free: Chain, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(free.bundle, tmp_path / "app.bundle"))
    flip_bit(bundle / "weights.safetensors", free.manifest["weights"][0]["offset"])
    done = slowly(bundle, {"step": 0.01}, 1.0).one_error("weights.safetensors")
    assert not done.out.strip()


LOOK = """
from torch.nn.modules import module as hooks

stack = torch._C._len_torch_function_stack
seen = {"within": [], "between": [], "answers": []}
old = torch.tanh
def tanh(x):
    seen["within"].append(stack())
    return old(x)
torch.tanh = tanh
one = function({"tokens": 3})
seen["answers"].append([next(one)])
seen["between"].append(stack())
try:
    list(function({"raise": True}))
except KeyError:
    seen["between"].append(stack())
seen["answers"].append(list(function({"spare": True})))
seen["between"].append(stack())
function.template.weights.wait()
seen["done"] = len(seen["within"])
seen["answers"][0] += list(one)
seen["between"].append(stack())
seen["hooks"] = len(hooks._global_forward_pre_hooks)
print(json.dumps(seen))
"""


def test_the_mode_is_there_in_a_call_while_weights_are_missing_and_never_else(free: Chain) -> None:
    seen = python(SLOW_LOAD + LOOK, free.bundle, 40_000, cwd=free.folder).report
    assert seen["answers"] == [free.plain({"tokens": 3}), free.plain({"spare": True})]
    assert seen["between"] == [0] * 4
    assert seen["within"][0] == 1
    assert set(seen["within"][seen["done"] :]) == {0}, "in the pieces after the last weight"
    assert seen["hooks"] == 0
