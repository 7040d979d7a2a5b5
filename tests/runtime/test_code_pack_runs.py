"""Functions that import from the code pack, the whole way: trace, compile, run."""

import shutil
from pathlib import Path

import pytest
from conftest import Chain, distribution, python, tidalctl, write_project
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


def of_library(folder: Path) -> Chain:
    """The chain in a folder whose function imports the library, which lies on PYTHONPATH."""
    return Chain(folder, [{}], env={"PYTHONPATH": str(folder / "site-packages")})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Nobody may change it: `whole` is a copy."""
    made = of_library(tmp_path_factory.mktemp("whole"))
    library = write_project(made.folder / "site-packages", LIBRARY)
    points = "[shelf.points]\none = shelf.lines:Line\n"
    distribution(library, "shelf", LIBRARY, **{"entry_points.txt": points})
    write_project(made.project, {"app.py": APP, "own.py": OWN})
    return made.make()


@pytest.fixture
def whole(made: Chain, tmp_path: Path) -> Chain:
    return of_library(Path(shutil.copytree(made.folder, tmp_path / "whole")))


def test_a_run_imports_everything_from_the_pack(made: Chain) -> None:
    report = made.run({})
    counts = report["modules"]
    assert (counts["changed"], counts["ordinary"], counts["unusable"]) == (0, 0, None)
    assert counts["packed"] > 500
    assert report["output"] == made.plain({})
    assert report["output"][-1] == ["Line"]
    tidalctl("verify", made.bundle, cwd=made.folder, env=made.env).ok()
    assert "code pack" in tidalctl("inspect", made.bundle, cwd=made.folder).ok().out


def test_a_traceback_shows_the_lines_of_packed_code(made: Chain) -> None:
    done = made.start({"fail": True}).one_error("ValueError: as told", code=1)
    assert 'raise ValueError("as told")' in done.err
    assert "own.py" in done.err


def test_a_run_says_how_many_modules_have_changed_and_without_a_provenance_their_content_tells(whole: Chain) -> None:
    rewrite(whole.folder / "site-packages/solo.py", LIBRARY["solo.py"].replace("'solo'", "'else'"))
    done = whole.start({}).ok()
    assert '"else"' in done.out
    assert "source has changed since compile, imported the ordinary way: 1" in done.err
    (whole.bundle / PROVENANCE).unlink()
    report = whole.run({})
    assert report["output"][2] == "else"
    assert (report["modules"]["changed"], report["modules"]["packed"] > 500) == (1, True)


def test_another_environment_with_the_same_packages_is_served(whole: Chain) -> None:
    site = whole.folder / "site-packages"
    for path in sorted(site.rglob("*"), key=lambda path: path.name == "RECORD"):
        path.touch()
    report = whole.run({})
    assert (report["modules"]["changed"], report["modules"]["ordinary"], report["output"]) == (0, 0, whole.plain({}))


def test_another_version_of_a_distribution_puts_the_pack_aside(whole: Chain) -> None:
    info = whole.folder / "site-packages/shelf-1.0.dist-info"
    info.rename(info.with_name("shelf-1.1.dist-info"))
    report = whole.run({})
    counts = report["modules"]
    assert "shelf 1.1 here, 1.0 in the trace" in counts["unusable"]
    assert (report["cause"], counts["cause"]) == ("packages-differ", "pack-packages-differ")
    assert counts["packed"] == 2  # the project's own
    assert counts["ordinary"] > 500


def test_a_bundle_loaded_from_python_imports_from_the_pack(made: Chain) -> None:
    script = """
import json, sys, tidalctl
function = tidalctl.load_bundle(sys.argv[1])
print(json.dumps([function({}), function.template.imports.counts()]))
"""
    output, counts = python(script, made.bundle, cwd=made.folder, env=made.env).report
    assert output[2:4] == ["solo", "own"]
    assert (counts["packed"] > 500, counts["ordinary"], counts["changed"]) == (True, 0, 0)
