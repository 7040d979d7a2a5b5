"""Where the CPU offers other vector instructions than in the trace, init runs only if it computed something of the state."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Chain, tidalctl, write_project
from safetensors.torch import save_file

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="torch has no vector instructions here to do without"
)
LESS = {"ATEN_CPU_CAPABILITY": "default"}  # as on a processor that has none of those that torch knows
READS = """
from pathlib import Path

import torch
from safetensors.torch import load_file
import tidalctl


@tidalctl.init(static=True)
def load():
    model = torch.nn.Linear(4, 4)
    model.load_state_dict(load_file(Path(__file__).parent / "w.safetensors"))
    return {"model": model, "positions": torch.arange(4)}


def handler(event, context):
    state = load()
    return [torch.backends.cpu.get_cpu_capability(), state["model"].weight.tolist(), state["positions"].tolist()]
"""


def on_less(made: Chain, *options: str) -> dict[str, Any]:
    event = json.dumps(made.events[0])
    return tidalctl("run", made.bundle, "--event", event, "--json", *options, cwd=made.folder, env=LESS).report


def test_a_state_that_was_only_read_is_restored_on_any_cpu(tmp_path: Path) -> None:
    made = Chain(tmp_path, [{}])
    weights = {"weight": torch.randn(4, 4), "bias": torch.randn(4)}
    save_file(weights, write_project(made.project, READS) / "w.safetensors")
    report = on_less(made.make())
    assert (report["strategy"], report["output"]) == ("snapshot", ["DEFAULT", weights["weight"].tolist(), [0, 1, 2, 3]])


def test_a_state_that_was_computed_is_made_by_init_on_another_cpu(decoder: Chain) -> None:
    report = on_less(decoder)
    assert (report["strategy"], report["cause"]) == ("eager", "cpu-differs")
    assert "the CPU offers DEFAULT" in report["fallback"] and "is computed by aten." in report["fallback"]
    assert report["output"] == on_less(decoder, "--eager")["output"]
