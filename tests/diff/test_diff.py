"""`tidalctl diff`: what two artifacts differ in, the costliest first."""

import json
from pathlib import Path

import pytest
from conftest import Chain, chained, forked
from hypothesis import given
from hypothesis import strategies as st

from tidalctl.diff.differences import differences
from tidalctl.diff.facts import ComparedWeight, Facts, ImportedModule, read_facts

APP = """
import torch

import tidalctl


@tidalctl.init(static=True)
def load():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))


def handler(event, context):
    with torch.no_grad():
        model = load()
        return model(torch.ones(64, 64)).sum().item()
"""


def weight(place: int | None, content: str = "a", nbytes: int = 100) -> ComparedWeight:
    return ComparedWeight(place, nbytes, "float32", (5, 5), content)


OLD = Facts(
    kind="bundle",
    function="app:handler",
    modules={"app": ImportedModule(0.1), "torch": ImportedModule(1.0, "app"), "torch.nn": ImportedModule(0.2, "torch")},
    weights={"a": weight(0), "b": weight(1), "c": weight(None)},
    pins={"package torch": "2.12", "variable HOME": "x"},
    files={"weights.safetensors": 300},
    strategy="snapshot",
    times={"warm bundle: first output": 1.0},
)


def told(new: Facts) -> list[tuple[str, str, str]]:
    return [(one.subject, one.sign, one.text) for one in differences(OLD, new)]


def changed(**fields: object) -> Facts:
    import msgspec

    return msgspec.structs.replace(OLD, **fields)


def test_imports_come_and_go_by_package() -> None:
    modules = {**OLD.modules, "pandas": ImportedModule(0.3, "app"), "pandas.core": ImportedModule(0.5, "pandas")}
    new = changed(modules=modules)
    assert told(new) == [("import", "added", "pandas: 2 modules, imported by app")]
    (found,) = differences(new, OLD)
    assert (found.sign, found.seconds) == ("removed", -0.8)
    assert differences(OLD, new)[0].seconds == 0.8


def test_weights_order_content_and_the_rest() -> None:
    assert told(changed(weights={"b": weight(0), "a": weight(1), "c": weight(None)})) == [
        ("weights", "changed", "the order of first use, from b on")
    ]
    assert told(changed(weights={**OLD.weights, "a": weight(0, "z"), "d": weight(2)})) == [
        ("weights", "added", "1: d"),
        ("weights", "changed", "content of 1: a"),
    ]
    assert told(changed(pins={"package torch": "2.13", "variable HOME": "y"})) == [
        ("pinned by", "changed", "package torch: 2.12 → 2.13"),
        ("pinned by", "changed", "variable HOME"),
    ]
    assert told(changed(strategy="eager", causes=("state: why (no-init)",), files={})) == [
        ("strategy", "changed", "snapshot → eager"),
        ("cause", "added", "state: why (no-init)"),
        ("file", "removed", "weights.safetensors"),
    ]
    assert told(changed(times={"warm bundle: first output": 1.05})) == []
    assert told(changed(times={"warm bundle: first output": 1.5})) == [
        ("time", "changed", "warm bundle: first output: 1.000 s → 1.500 s")
    ]


NAMES = st.dictionaries(st.sampled_from(["a", "a.b", "c", "d.e.f"]), st.builds(ImportedModule, st.floats(0, 1)), max_size=4)


@given(NAMES, NAMES)
def test_what_comes_one_way_goes_the_other(one: dict[str, ImportedModule], other: dict[str, ImportedModule]) -> None:
    facts = changed(modules=one), changed(modules=other)
    there, back = differences(*facts), differences(*facts[::-1])
    assert sorted(x.seconds or 0 for x in there) == sorted(-(x.seconds or 0) for x in back)
    assert (there == []) == (one.keys() == other.keys())


def test_an_artifact_does_not_differ_from_itself(decoder: Chain, tmp_path: Path) -> None:
    for path in (decoder.bundle, decoder.trace):
        same = forked("diff", path, path, "--exit-code", cwd=tmp_path)
        assert (same.code, same.out[:14]) == (0, "no difference:")
    forked("diff", decoder.bundle, decoder.trace, cwd=tmp_path).one_error("is a bundle", "is a trace")
    forked("diff", decoder.bundle, tmp_path / "none", cwd=tmp_path).one_error("no trace, bundle or bench")
    assert read_facts(decoder.bundle).modules["torch"].self_s


@pytest.mark.slow
def test_real_artifacts(tmp_path: Path) -> None:
    old: Chain = chained(tmp_path / "old", APP)
    new: Chain = chained(tmp_path / "new", APP.replace("import torch\n", "import colorsys\nimport torch\n", 1))
    for one, other in ((old.bundle, new.bundle), (old.trace, new.trace)):
        done = forked("diff", one, other, "--exit-code", "--json", cwd=tmp_path)
        done.one_error("differ", code=1)
        found = json.loads(done.out.strip())["differences"]
        (imported,) = [each for each in found if each["subject"] == "import"]
        assert imported["text"] == "colorsys, imported by app" and 0 < imported["seconds"] < 1
        assert not [each for each in found if each["subject"] in ("weights", "kernels", "strategy")]
