"""Answers hang on where a weight lies: BLAS rounds single precision otherwise at other addresses modulo 16."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Chain, tidalctl
from safetensors.torch import save_file
from warm import plainly, served

# Filled as from_pretrained does it: made on the meta device, its weights those of a mapped stock file. The count of batches, of
# 8 bytes, lies first in the file, and the weights behind it at addresses that are 8 modulo 16.
APP = """
import pathlib
import tidalctl
import torch
from safetensors.torch import load_file
from torch import nn

@tidalctl.init(static=True)
def load(event):
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    model.load_state_dict(load_file(pathlib.Path(__file__).parent / "model.safetensors"), assign=True)
    return model.eval()

def handler(event, context):
    model = load(event)
    with torch.no_grad():
        scores = model(torch.full((1, 16), float(event["x"])).cos_())[0]
    addresses = [weight.data_ptr() % 16 for weight in model.parameters()]
    return {"addresses": addresses, "scores": scores.tolist() if event.get("scores") else int(scores.argmax())}
"""


# What depends on the event is structure, made anew in each start, from reads that the bundle answers.
REPLAYED = (
    APP.replace("static=True", "")
    .replace("    with torch.device", "    more = [torch.ones(1) for _ in range(event['more'])]\n    with torch.device", 1)
    .replace("return model.eval()", "return {'model': model.eval(), 'more': more}")
    .replace("model = load(event)", "model = load(event)['model']")
)


@pytest.fixture(autouse=True)
def checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    (tmp_path / "project").mkdir()
    save_file(model.state_dict(), tmp_path / "project" / "model.safetensors")


def answers_to_the_last_bit(made: Chain, **more: int) -> None:
    events = [{"x": x, "scores": True, **more} for x in (1, 2, 3)]
    plain, (answers, fallbacks, _) = plainly(made, *events), served(made, *events)
    assert all(8 in answer["addresses"] for answer in plain), "otherwise this shows nothing"
    assert (answers, fallbacks) == (plain, [None] * 3)
    tidalctl("verify", made.bundle, cwd=made.folder).ok()


def test_weights_of_a_mapped_file_answer_to_the_last_bit_as_they_do_plainly(chain: Callable[..., Chain]) -> None:
    made = chain(APP, {"x": 1})
    assert made.manifest["strategy"] == "snapshot"
    answers_to_the_last_bit(made)


@pytest.mark.slow
def test_so_do_those_that_a_replay_has_from_the_bundle(chain: Callable[..., Chain]) -> None:
    made = chain(REPLAYED, {"x": 1, "more": 1}, {"x": 1, "more": 2})
    assert made.manifest["strategy"] == "replay"
    answers_to_the_last_bit(made, more=3)
