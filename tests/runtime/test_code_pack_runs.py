"""Functions that import from the code pack, the whole way: trace, compile, run."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import PLAIN, Chain, Done, python, tidalctl, write_project
from pack_cases import LIBRARY, rewrite

from tidalctl.artifacts.bundle.manifest import PROVENANCE

APP = """
import importlib.metadata

import shelf.deep
import solo
import tidalctl
import torch

import own


@tidalctl.init(static=True)
def load(event):
    return {"weight": torch.ones(2), "line": shelf.lines.Line("a")}


def handler(event, context):
    import shelf.late

    state = load(event)
    if event.get("fail"):
        own.fail()
    points = importlib.metadata.entry_points(group="shelf.points")
    return [state["weight"].tolist(), state["line"].text, solo.NAME, own.NAME, own.source(), [p.load().__name__ for p in points]]
"""
OWN = """
import inspect

NAME = "own"


def source():
    return inspect.getsource(source)


def fail():
    raise ValueError("as told")
"""


@dataclass
class Whole:
    """A chain whose function imports the library, which lies on PYTHONPATH."""

    chain: Chain
    library: Path

    @property
    def env(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.library)}

    def run(self, *options: str, event: str = "{}") -> Done:
        return tidalctl("run", self.chain.bundle, "--event", event, *options, cwd=self.chain.folder, env=self.env)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Nobody may change it: `whole` is a copy."""
    folder = tmp_path_factory.mktemp("whole")
    library = write_project(folder / "site-packages", LIBRARY)
    points = "[shelf.points]\none = shelf.lines:Line\n"
    record = "".join(f"{name},,\n" for name in LIBRARY)
    files = {"METADATA": "Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n", "RECORD": record, "entry_points.txt": points}
    write_project(library / "shelf-1.0.dist-info", files)
    write_project(folder / "project", {"app.py": APP, "own.py": OWN})
    for command in (("trace", "project/app.py", "--event", "{}"), ("compile", "app.trace")):
        tidalctl(*command, cwd=folder, env={"PYTHONPATH": str(library)}).ok()
    return Whole(Chain(folder, [{}]), library)


@pytest.fixture
def whole(made: Whole, tmp_path: Path) -> Whole:
    shutil.copytree(made.chain.folder, tmp_path / "whole")
    return Whole(Chain(tmp_path / "whole", [{}]), tmp_path / "whole" / "site-packages")


def test_a_run_imports_everything_from_the_pack(made: Whole) -> None:
    report = made.run("--json").report
    counts = report["modules"]
    assert (counts["changed"], counts["ordinary"], counts["unusable"]) == (0, 0, None)
    assert counts["packed"] > 500
    plain = json.loads(python(PLAIN, made.chain.project, "app", "{}", cwd=made.chain.folder, env=made.env).out.splitlines()[-1])
    assert report["output"] == plain
    assert plain[-1] == ["Line"]
    tidalctl("verify", made.chain.bundle, cwd=made.chain.folder, env=made.env).ok()
    assert "code pack" in tidalctl("inspect", made.chain.bundle, cwd=made.chain.folder).ok().out


def test_a_traceback_shows_the_lines_of_packed_code(made: Whole) -> None:
    done = made.run(event='{"fail": true}').one_error("ValueError: as told", code=1)
    assert 'raise ValueError("as told")' in done.err
    assert "own.py" in done.err


def test_a_bundle_without_a_provenance_runs_and_a_run_says_how_many_modules_have_changed(whole: Whole) -> None:
    rewrite(whole.library / "solo.py", LIBRARY["solo.py"].replace("'solo'", "'else'"))
    done = whole.run().ok()
    assert '"else"' in done.out
    assert "source has changed since compile, imported the ordinary way: 1" in done.err
    (whole.chain.bundle / PROVENANCE).unlink()
    report = whole.run("--json").report
    assert (report["output"][2], report["modules"]["packed"]) == ("else", 2)


def test_another_version_of_a_distribution_puts_the_pack_aside(whole: Whole) -> None:
    (whole.library / "shelf-1.0.dist-info").rename(whole.library / "shelf-1.1.dist-info")
    report = whole.run("--json").report
    counts = report["modules"]
    assert "shelf 1.0" in counts["unusable"]
    assert (report["cause"], counts["cause"]) == ("packages-differ", "pack-packages-differ")
    assert counts["packed"] == 2  # the project's own
    assert counts["ordinary"] > 500


def test_a_bundle_loaded_from_python_imports_from_the_pack(made: Whole) -> None:
    script = """
import json, sys, tidalctl
function = tidalctl.load_bundle(sys.argv[1])
print(json.dumps([function({}), function.template.imports.counts()]))
"""
    output, counts = json.loads(python(script, made.chain.bundle, cwd=made.chain.folder, env=made.env).ok().out)
    assert output[2:4] == ["solo", "own"]
    assert (counts["packed"] > 500, counts["ordinary"], counts["changed"]) == (True, 0, 0)
