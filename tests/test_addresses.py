"""Answers hang on where a weight lies: BLAS rounds single precision otherwise at other addresses modulo 16."""

from collections.abc import Callable
from pathlib import Path

import torch
from conftest import Chain, tidalctl, write_project
from safetensors.torch import save_file

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


def test_weights_of_a_mapped_file_answer_to_the_last_bit_as_they_do_plainly(
    chain: Callable[..., Chain], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    write_project(tmp_path / "project", APP)
    save_file(model.state_dict(), tmp_path / "project" / "model.safetensors")
    made = chain(APP, {"x": 1})
    assert made.manifest["strategy"] == "snapshot"
    for x in (1, 2, 3):
        event = {"x": x, "scores": True}
        plainly = made.plain(event)
        assert 8 in plainly["addresses"], "otherwise this shows nothing"
        assert made.run(event)["output"] == plainly, event
    tidalctl("verify", made.bundle, cwd=tmp_path).ok()
