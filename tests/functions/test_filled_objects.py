"""An init that fills its object: the attributes are restored in place, in whatever object the function has made."""

from pathlib import Path

import pytest
from conftest import Chain, chained, tidalctl

PREDICTOR = """
import torch
from torch import nn


class Predictor:
    def __init__(self, scale):
        self.scale = scale

    def setup(self):
        torch.manual_seed(0)
        self.net = nn.Linear(4, 4)
        self.me, self.run = self, self.predict
        return {"ready": True}

    def predict(self, x):
        with torch.no_grad():
            return (self.net(torch.full((4,), x)) * self.scale).tolist()


it = said = None


def handler(event, context):
    global it, said
    if it is None:
        it = Predictor(event.get("scale", 2))
        said = it.setup()
    return [it.run(event["x"]), it.me is it, it.run.__self__ is it, said, sorted(vars(it))]
"""
CLASS = """
import os
import torch
from torch import nn


class Net(nn.Module):
    count = 0

    def __init__(self, width):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Linear(width, width), nn.Linear(width, 1)
        self.last.weight = nn.Parameter(self.first.weight[:1])
        Net.count += 1

    def forward(self, x):
        return self.last(self.first(x))


nets = [Net(4)]


def handler(event, context):
    with torch.no_grad():
        return [nets[0](torch.full((4,), event["x"])).tolist(), Net.count, nets[0].training, len(list(nets[0].parameters()))]
"""


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chained(tmp_path_factory.mktemp("predictor"), PREDICTOR, {"x": 1.0}, options=("--init", "app:Predictor.setup"))


@pytest.fixture(scope="module")
def made_class(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chained(tmp_path_factory.mktemp("class"), CLASS, {"x": 1.0}, options=("--init", "app:Net"))


def test_a_method_fills_its_object(predictor: Chain) -> None:
    report = predictor.run({"x": 3.0})
    assert (report["output"], report["strategy"]) == (predictor.plain({"x": 3.0}), "snapshot")
    assert {weight["name"] for weight in predictor.manifest["weights"]} == {"net.weight", "net.bias", ".torch.rng"}


def test_an_object_that_is_another_before_is_a_mismatch(predictor: Chain) -> None:
    report = predictor.run({"x": 3.0, "scale": 5})
    assert report["output"] == predictor.plain({"x": 3.0, "scale": 5})
    assert (report["strategy"], report["cause"]) == ("eager", "call-differs")


def test_a_class_as_init(made_class: Chain, tmp_path: Path) -> None:
    report = made_class.run({"x": 3.0})
    assert (report["output"], report["strategy"]) == (made_class.plain({"x": 3.0}), "snapshot")
    made_class.project.rename(tmp_path / "gone")
    try:
        moved = made_class.bundle.rename(tmp_path / "moved.bundle")
        report = tidalctl("run", moved, "--event", '{"x": 5.0}', "--json", cwd=tmp_path).report
        moved.rename(made_class.bundle)
    finally:
        (tmp_path / "gone").rename(made_class.project)
    assert (report["output"], report["strategy"]) == (made_class.plain({"x": 5.0}), "snapshot")
