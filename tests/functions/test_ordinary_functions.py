"""What ordinary functions do besides building a state is no hindrance: they are served from the bundle, in a warm process, too."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Chain, python, tidalctl, write_project
from safetensors.torch import save_file

APP = """
import enum
import functools
import os
import pathlib
import tidalctl
import torch
from safetensors.torch import load_file
from torch import nn

HERE = pathlib.Path(__file__).parent


class Mode(enum.Flag):
    A = 1
    B = 2


@functools.cache
def device():
    return torch.device("cpu")


@tidalctl.init
def words():
    return {"words": ["a", "b"], "mode": Mode.A | Mode.B}


@tidalctl.init
def load(event):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    model = nn.Linear(2, 2)
    model.load_state_dict(load_file(HERE / "model.safetensors"))
    return {"model": model, "device": device(), "mode": Mode.A | Mode.B}


def handler(event, context):
    os.chdir(HERE)
    os.environ["TORCH_HOME"] = str(HERE / "cache")
    torch.manual_seed(event["seed"])
    state, known = load(event), words()
    os.environ["LAST_REQUEST"] = str(event)
    return [state["model"](torch.ones(1, 2)).tolist(), torch.rand(2).tolist(), known["words"], state["mode"].value]
"""
WARM = """
import json, sys, tidalctl
function = tidalctl.load_bundle(sys.argv[1])
print(json.dumps([[function(event), function.template.fallback is None] for event in json.loads(sys.argv[2])]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Traced from within its project, as the README does."""
    made = Chain(tmp_path_factory.mktemp("ordinary"), [{"seed": 5}])
    write_project(made.project, APP)
    save_file({"weight": torch.arange(4.0).view(2, 2), "bias": torch.ones(2)}, made.project / "model.safetensors")
    tidalctl("trace", "app.py", "--event", '{"seed": 5}', "-o", "../app.trace", cwd=made.project).ok()
    made.compiled = tidalctl("compile", "../app.trace", "-o", "../app.bundle", cwd=made.project).ok()
    return made


def test_a_working_directory_a_variable_a_cache_a_flag_and_a_second_init_are_no_hindrance(made: Chain) -> None:
    assert made.manifest["strategy"] == "snapshot", made.said()
    report = made.run({"seed": 5})
    assert (report["fallback"], report["other_inits"]) == (None, ["app:words"])
    assert report["output"] == made.plain({"seed": 5})


def test_nor_is_a_link_to_the_bundle(made: Chain, tmp_path: Path) -> None:
    (tmp_path / "link.bundle").symlink_to(made.bundle)
    event = json.dumps({"seed": 5})
    assert tidalctl("run", tmp_path / "link.bundle", "--event", event, "--json", cwd=tmp_path).report["fallback"] is None


def test_init_finds_its_files_where_another_seed_than_the_traced_one_makes_it_run(made: Chain) -> None:
    report = made.run({"seed": 6})
    assert "torch.rng" in report["fallback"] and report["cause"] == "generator-differs"
    assert report["output"] == made.plain({"seed": 6})


def test_in_a_warm_process_an_event_is_served_whatever_earlier_ones_have_left(made: Chain) -> None:
    events: list[dict[str, Any]] = [{"seed": seed} for seed in (6, 5, 5, 6, 5)]
    told = json.loads(python(WARM, made.bundle, json.dumps(events), cwd=made.folder).ok().out.splitlines()[-1])
    assert told == [[made.plain(event), event["seed"] == 5] for event in events]


@pytest.mark.slow
def test_no_path_of_the_machine_is_in_what_a_start_must_agree_in(made: Chain, tmp_path: Path) -> None:
    again = Chain(tmp_path, made.events)
    write_project(again.project, APP)
    (again.project / "model.safetensors").write_bytes((made.project / "model.safetensors").read_bytes())
    tidalctl("trace", "app.py", "--event", '{"seed": 5}', "-o", "../app.trace", cwd=again.project).ok()
    tidalctl("compile", "../app.trace", "-o", "../app.bundle", cwd=again.project).ok()
    assert again.manifest["guard"] == made.manifest["guard"]
