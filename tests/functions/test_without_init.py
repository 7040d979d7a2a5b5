"""Functions without an init: a state that the import makes is restored; else the imports are, and a word says what to name."""

import shutil
from pathlib import Path

import pytest
from conftest import Chain, chained, tidalctl

AT_IMPORT = '''
"""A model that is made while the module is imported."""
from __future__ import annotations

import inspect
import sys
import traceback

import torch
from torch import nn

import parts

MADE = []
torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(512, 600), parts.Scaled(600)

    def forward(self, x):
        return self.last(self.first(x))


net = Net()


def helper(x):
    """Defined between two statements of the state."""
    with torch.no_grad():
        return net(torch.full((512,), x) + table).tolist()


import json


class Later:
    def __init__(self, of: Net) -> None:
        self.of = of


table: torch.Tensor = torch.zeros(512)
steps = torch.arange(512)
table.copy_(steps)
del steps
later = Later(net)


def handler(event, context):
    if event.get("fail"):
        try:
            helper("not a number")
        except TypeError:
            return [line.strip() for line in traceback.format_exc().splitlines() if "line" in line and "app.py" in line][-1][-20:]
    made = [inspect.getsource(helper).splitlines()[1].strip(), helper.__code__.co_firstlineno, type(later).__name__]
    return [helper(event["x"]), *made, later.of is net, net.training, "steps" in globals(), sys.modules["app"].table is table]
'''
PARTS = """
import torch
from torch import nn


class Scaled(nn.Linear):
    def __init__(self, width):
        super().__init__(width, 4)
"""
IN_HANDLER = """
import torch

nets = {}


def load(name):
    torch.manual_seed(len(name))
    return torch.nn.Linear(512, 1024)


def net_of(name):
    if name not in nets:
        nets[name] = load(name)
    return nets[name]


def handler(event, context):
    with torch.no_grad():
        return net_of(event["name"])(torch.ones(512)).sum().item()
"""


@pytest.fixture(scope="module")
def at_import(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chained(tmp_path_factory.mktemp("at_import"), {"app.py": AT_IMPORT, "parts.py": PARTS}, {"x": 1.0})


def test_statements_that_make_weights_are_the_init(at_import: Chain) -> None:
    """Without a word of the user's; what they define is there, and what the handler asks of its source is as ever."""
    assert at_import.traced
    assert "app.py makes its weights (1.24 MB) while it is imported, on lines 15 to 47: they are init" in at_import.traced.err
    for event in ({"x": 1.0}, {"x": 3.0}, {"fail": True, "x": 0.0}):
        report = at_import.run(event)
        assert (report["output"], report["strategy"], report["fallback"]) == (at_import.plain(event), "snapshot", None)
    assert at_import.manifest["init"] == "app:15-47"
    names = {weight["name"] for weight in at_import.manifest["weights"]} - {".torch.rng"}
    assert names == {"net.first.weight", "net.first.bias", "net.last.weight", "net.last.bias", "table"}


def test_a_moved_bundle_has_the_state_too(at_import: Chain, tmp_path: Path) -> None:
    expected = at_import.plain({"x": 2.0})
    shutil.copytree(at_import.bundle, tmp_path / "moved.bundle")
    hidden = at_import.project.rename(tmp_path / "hidden")
    try:
        report = tidalctl("run", "moved.bundle", "--event", '{"x": 2.0}', "--json", cwd=tmp_path).report
    finally:
        hidden.rename(at_import.project)
    assert (report["output"], report["strategy"]) == (expected, "snapshot")


def test_init_may_be_named_by_its_lines_and_lines_that_cut_a_statement_are_told(at_import: Chain, tmp_path: Path) -> None:
    arguments = ("trace", at_import.project / "app.py", "--event", '{"x": 1.0}', "-o", "a.trace")
    named = tidalctl(*arguments, "--init", "app:15-47", cwd=tmp_path).ok()
    assert "init      app:15-47 (static)" in named.err
    done = tidalctl(*arguments, "--force", "--init", "app:20-47", cwd=tmp_path)
    done.one_error("--init app:20-47: no whole statements at the top of app are on lines 20 to 47")
    assert "hint: the statement there is app:18-24" in done.err


def test_without_an_init_a_bundle_has_the_imports_and_says_what_to_name(tmp_path: Path) -> None:
    """And `--init auto` names it."""
    plain = chained(tmp_path / "plain", IN_HANDLER, {"name": "a"})
    word = (
        "load at app.py:7 builds 2.10 MB on each start; to have that in the bundle, mark it with @tidalctl.init "
        "or trace with --init app:load"
    )
    assert plain.traced and word in plain.traced.err and word in plain.said()
    report = plain.run({"name": "bb"})
    assert (report["output"], report["strategy"], report["cause"]) == (plain.plain({"name": "bb"}), "eager", "no-init")
    assert report["modules"]["packed"] > 100
    done = tidalctl("run", plain.bundle, "--event", '{"name": "a"}', cwd=tmp_path).ok()
    assert "the function calls no init: its imports come from the bundle" in done.err
    checked = tidalctl("verify", plain.bundle, "--here", cwd=tmp_path)
    checked.one_error("holds no state", code=1)


@pytest.mark.slow
def test_auto_names_the_function_that_makes_the_weights(tmp_path: Path) -> None:
    auto = chained(tmp_path / "auto", IN_HANDLER, {"name": "a"}, options=("--init", "auto"))
    assert auto.traced
    assert "--init app:load: it makes the weights (2.10 MB; app.py:7)" in auto.traced.err
    assert "the handler ran 3 times" in auto.traced.err
    assert auto.run({"name": "a"})["strategy"] == "snapshot"
    other = auto.run({"name": "bb"})
    assert (other["output"], other["strategy"], other["cause"]) == (auto.plain({"name": "bb"}), "eager", "call-differs")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("effect", "code"),
    [
        ("del given", "global-deleted"),
        ("import parts", "defined-amid"),
    ],
)
def test_another_effect_of_the_statements_is_a_cause(tmp_path: Path, effect: str, code: str) -> None:
    source = f"""
import torch

given = 1
one = torch.arange(2.0**17)
{effect}
two = torch.arange(2.0**17)


def handler(event, context):
    return (one + two).sum().item()
"""
    made = chained(tmp_path, {"app.py": source, "parts.py": "MADE = [1]\n"}, {})
    report = made.run({})
    assert (report["output"], report["strategy"], report["cause"]) == (made.plain({}), "eager", code)
