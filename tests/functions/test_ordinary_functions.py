"""What ordinary functions do besides building a state is no hindrance: they are served from the bundle, in a warm process, too."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Chain, tidalctl, write_project
from safetensors.torch import save_file
from warm import served

APP = """
import enum
import functools
import os
import pathlib
import sys
import tidalctl
import torch
from safetensors.torch import load_file
from torch import nn

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "lib"))
import inner


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
    return [state["model"](torch.ones(1, 2)).tolist(), torch.rand(2).tolist(), known["words"], state["mode"].value, inner.NAME]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Traced from within its project, as the README does."""
    made = Chain(tmp_path_factory.mktemp("ordinary"), [{"seed": 5}])
    write_project(made.project, {"app.py": APP, "lib/inner.py": "NAME = 'mine'\n"})
    save_file({"weight": torch.arange(4.0).view(2, 2), "bias": torch.ones(2)}, made.project / "model.safetensors")
    tidalctl("trace", "app.py", "--event", '{"seed": 5}', "-o", "../app.trace", cwd=made.project).ok()
    made.compiled = tidalctl("compile", "../app.trace", "-o", "../app.bundle", cwd=made.project).ok()
    return made


def test_a_directory_a_variable_a_cache_a_flag_a_second_init_and_a_link_are_no_hindrance(made: Chain, tmp_path: Path) -> None:
    assert made.manifest["strategy"] == "snapshot", made.said()
    (tmp_path / "link.bundle").symlink_to(made.bundle)
    report = tidalctl("run", tmp_path / "link.bundle", "--event", '{"seed": 5}', "--json", cwd=tmp_path).report
    assert (report["fallback"], report["other_inits"]) == (None, [])
    assert report["output"] == made.plain({"seed": 5})


def test_where_another_seed_makes_init_run_it_finds_its_files_but_no_code_in_the_project(made: Chain, tmp_path: Path) -> None:
    """Whatever the provenance says."""
    evil = Path(shutil.copytree(made.project, tmp_path / "evil"))
    (evil / "lib" / "inner.py").write_text("NAME = 'evil'\n")
    bundle = Path(shutil.copytree(made.bundle, tmp_path / "evil.bundle"))
    told = json.loads((bundle / "provenance.json").read_text())
    (bundle / "provenance.json").write_text(json.dumps({**told, "root": str(evil)}))
    report = tidalctl("run", bundle, "--event", '{"seed": 6}', "--json", cwd=tmp_path).report
    assert "torch.rng" in report["fallback"] and report["cause"] == "generator-differs"
    assert report["output"] == made.plain({"seed": 6}) and report["output"][-1] == "mine"


def test_in_a_warm_process_an_event_is_served_whatever_earlier_ones_have_left(made: Chain) -> None:
    events: list[dict[str, Any]] = [{"seed": seed} for seed in (6, 5, 5, 6, 5)]
    outputs, fallbacks, _ = served(made, *events)
    assert outputs == [made.plain(event) for event in events]
    assert [fallback is None for fallback in fallbacks] == [event["seed"] == 5 for event in events]


@pytest.mark.slow
def test_no_path_of_the_machine_is_in_what_a_start_must_agree_in(made: Chain, tmp_path: Path) -> None:
    again = Chain(tmp_path, made.events)
    shutil.copytree(made.project, again.project)
    tidalctl("trace", "app.py", "--event", '{"seed": 5}', "-o", "../app.trace", cwd=again.project).ok()
    tidalctl("compile", "../app.trace", "-o", "../app.bundle", cwd=again.project).ok()
    assert again.manifest["guard"] == made.manifest["guard"]
