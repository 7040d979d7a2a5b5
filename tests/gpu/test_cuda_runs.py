"""Whole runs whose weights live on the stand-in for a CUDA device: answers, writes, errors, and a state for each call."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import Chain, Done, chained, flip_bit, python

from tidalctl.artifacts.bundle.manifest import decode_manifest as decode
from tidalctl.artifacts.bundle.manifest import encode_manifest, seal

GPU = "cuda:0"
APP = """
import hashlib
import torch
from torch import nn
import tidalctl

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(97, 256)
        self.layers = nn.ModuleList(nn.Linear(256, 256) for _ in range(8))
        self.attention = nn.MultiheadAttention(256, 4, batch_first=True)
        self.unused = nn.Linear(256, 256)
        self.head = nn.Linear(256, 97, bias=False)

    def forward(self, ids, unused):
        x = self.embedding(ids)[None]
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        x = self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.unused(x) if unused else x)[0, -1]

@tidalctl.init(static=True)
def load(event):
    torch.manual_seed(0)
    return {"model": Model().eval().to("cuda"), "scale": torch.tensor([1.5]), "bias": torch.ones(97, device="cuda")}

@torch.inference_mode()
def handler(event, context):
    state = load(event)
    model = state["model"]
    if event.get("overwrite"):
        model.head.weight[event["overwrite"]] = 0.125
    ids = torch.tensor(event["prompt"], device="cuda")
    if event.get("draws"):
        yield torch.rand(event["draws"], device="cuda").tolist()
    for _ in range(3):
        logits = model(ids, event.get("unused", False)) * state["scale"].item() + state["bias"]
        if event.get("all"):
            logits = logits + sum(p.sum() for p in model.parameters())
        ids = torch.cat((ids, logits.argmax().reshape(1)))
        yield [ids[-1].item(), hashlib.sha256(logits.cpu().numpy().tobytes()).hexdigest()]
"""
EVENTS: list[dict[str, Any]] = [
    {"prompt": [3, 1, 4]},
    {"prompt": list(range(40)), "unused": True},
    {"prompt": [5], "overwrite": [1, 90]},
    {"prompt": [7, 7], "all": True},
    {"prompt": [3, 1, 4], "draws": 3},
]
# `tidalctl run` where the device is the stand-in, over a link that is held back
RUN = """
import functools, sys
tests, pace, size = sys.argv.pop(1), float(sys.argv.pop(1)), int(sys.argv.pop(1))
from tidalctl.runtime import launch
launch.StreamOptions = functools.partial(launch.StreamOptions, group_size=size)
import torch
sys.path.append(tests)
from cuda_standin import StandIn, install
standin = install(StandIn(pace=pace or None))
report = launch.start_report
launch.start_report = lambda *given, **named: {**report(*given, **named), "slabs": standin.allocated}
from tidalctl.__main__ import main
main()
"""


@pytest.fixture(scope="session")
def on_gpu(experts: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of apps/experts as if it had been made on a GPU, but for one weight. Nobody may change it."""
    return as_on_gpu(experts.bundle, tmp_path_factory.mktemp("gpu") / "app.bundle")


@pytest.fixture(scope="session")
def every_way(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """APP, traced and compiled on the CPU."""
    return chained(tmp_path_factory.mktemp("ways"), APP.replace('"cuda"', '"cpu"'), EVENTS[0])


def as_on_gpu(made: Path, bundle: Path) -> Path:
    shutil.copytree(made, bundle)
    manifest = decode((bundle / "manifest.json").read_bytes(), bundle)
    on_cpu = [one for one in manifest.weights if "scale" in one.name or one.dtype == "uint8"]  # generators' states are bytes
    moved = tuple(one if one in on_cpu else msgspec.structs.replace(one, device=GPU) for one in manifest.weights)
    (bundle / "manifest.json").write_bytes(encode_manifest(seal(msgspec.structs.replace(manifest, weights=moved))))
    return bundle


def run(bundle: Path, event: dict[str, Any], *options: str, seconds: float = 0.0) -> Done:
    size = (bundle / "weights.safetensors").stat().st_size
    pace = size / seconds if seconds else 0
    here = Path(__file__).parents[1] / "support"
    return python(RUN, here, pace, 20_000, "run", bundle, "--event", json.dumps(event), "--json", *options, cwd=bundle.parent)


@pytest.mark.parametrize(("io", "seconds"), [("direct", 3.0), pytest.param("auto", 0.0, marks=pytest.mark.slow)])
def test_a_run_answers_as_plainly(experts: Chain, on_gpu: Path, io: str, seconds: float) -> None:
    event = {"prompt": list(range(40)), "tokens": 3}
    found = run(on_gpu, event, "--io", io, seconds=seconds).report
    assert found["output"] == experts.plain(event)
    assert found["fallback"] is None
    assert found["strategy"] == "snapshot"
    assert found["io"] in ({"direct": ("direct", "read")}.get(io, ("page cache", "read")))
    assert found["slabs"], "weights went to the device"


@pytest.mark.slow
def test_what_the_handler_writes_while_loading_stays_written(experts: Chain, on_gpu: Path) -> None:
    event = {"prompt": [3, 1, 4], "overwrite": [1, 5, 9], "tokens": 2}
    assert run(on_gpu, event, "--verify", "off", seconds=3.0).report["output"] == experts.plain(event)


@pytest.mark.slow  # quick: of apps/experts above, and of the gate in runtime/test_operator_gate.py
@pytest.mark.parametrize("event", EVENTS, ids=json.dumps)
def test_whatever_reads_a_weight_waits_for_it(every_way: Chain, tmp_path: Path, event: dict[str, Any]) -> None:
    bundle = as_on_gpu(every_way.bundle, tmp_path / "app.bundle")
    assert run(bundle, event, seconds=4.0).report["output"] == every_way.plain(event)


@pytest.mark.parametrize(("io", "place"), [("buffered", 0), ("direct", -1)])
def test_a_flipped_bit_is_one_error_and_no_output(on_gpu: Path, tmp_path: Path, io: str, place: int) -> None:
    bundle = Path(shutil.copytree(on_gpu, tmp_path / "spoiled.bundle"))
    weights = json.loads((bundle / "manifest.json").read_bytes())["weights"]
    used = sorted((one for one in weights if one.get("first_use") is not None), key=lambda one: one["first_use"])
    flip_bit(bundle / "weights.safetensors", used[place]["offset"])
    run(bundle, {"prompt": [1, 2]}, "--io", io).one_error("xxh3 differs")


@pytest.mark.slow
def test_each_call_of_init_has_weights_of_its_own(experts: Chain, on_gpu: Path) -> None:
    script = """
import json, sys
from tidalctl import load_bundle
function = load_bundle(sys.argv[2])
import torch
sys.path.append(sys.argv[1])
from cuda_standin import StandIn, install
standin = install(StandIn())
weights, answers = function.template.weights, []
for step, event in zip(("", "", "make_ready"), map(json.loads, sys.argv[3:6])):
    getattr(function.template, step, lambda: None)()
    answers.append(list(function(event)))
weights.wait()
print(json.dumps([answers, len(standin.allocated), weights.done, len(torch.nn.modules.module._global_forward_pre_hooks)]))
"""
    events = [{"prompt": [8, 16], "overwrite": [2]}, {"prompt": list(range(30))}, {"prompt": [5, 2]}]
    here = Path(__file__).parents[1] / "support"
    answers, slabs, finished, hooks = python(script, here, on_gpu, *map(json.dumps, events), cwd=experts.folder).report
    assert answers == [experts.plain(event) for event in events]
    assert slabs == 3
    assert finished
    assert hooks == 0, "nothing of ours is on the path"
