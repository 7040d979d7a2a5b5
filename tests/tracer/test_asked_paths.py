"""A trace holds the paths that init and the handler asked about, besides those that they opened."""

import glob
import importlib
import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import tidalctl, write_project

from tidalctl.artifacts.trace.file import read_trace
from tidalctl.artifacts.trace.records import PathAsked
from tidalctl.tracer.process.asked_paths import PathRecorder
from tidalctl.tracer.process.clock import TraceClock

EXISTS = {
    "os.path.exists": os.path.exists,
    "os.path.isfile": os.path.isfile,
    "os.path.isdir": os.path.isdir,
    "os.path.lexists": os.path.lexists,
    "os.stat": lambda path: os.path.getsize(path) if os.path.exists(path) else 0,
    "os.access": lambda path: os.access(path, os.R_OK),
    "Path.exists": lambda path: Path(path).exists(),
    "Path.is_dir": lambda path: Path(path).is_dir(),
    "bytes": lambda path: os.path.exists(os.fsencode(path)),
}
LISTED = {
    "os.listdir": os.listdir,
    "os.scandir": lambda path: list(os.scandir(path)),
    "os.walk": lambda path: list(os.walk(path)),
    "glob": lambda path: glob.glob("*", root_dir=path),
    "Path.iterdir": lambda path: list(Path(path).iterdir()),
}


def asked(ask: Callable[[], object], phase: str = "init") -> list[PathAsked]:
    clock = TraceClock()
    with PathRecorder(clock, os.getcwd()) as recorder, clock.entering(phase):
        ask()
    return list(recorder.paths())


@pytest.mark.parametrize("how", EXISTS)
def test_a_question_whether_a_path_is_there_is_noted_with_its_answer(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    for name, found in (("there", True), ("gone", False)):
        record = PathAsked(path=str(tmp_path / name), given=name, phase="init", kind="exists", found=found)
        assert asked(lambda name=name: EXISTS[how](name)) == [record]  # type: ignore[misc]


@pytest.mark.parametrize("how", LISTED)
def test_a_folder_that_is_listed_is_noted(tmp_path: Path, how: str) -> None:
    (tmp_path / "in it").touch()
    record = PathAsked(path=str(tmp_path), given=str(tmp_path), phase="handler", kind="listed", found=True)
    assert record in asked(lambda: LISTED[how](str(tmp_path)), "handler")


def test_a_folder_that_is_not_there_is_noted_as_that(tmp_path: Path) -> None:
    def ask() -> None:
        with pytest.raises(FileNotFoundError):
            os.listdir(tmp_path / "gone")

    (record,) = asked(ask)
    assert (record.kind, record.found) == ("listed", False)


def test_who_lists_a_file_learns_that_it_is_there(tmp_path: Path) -> None:
    def ask() -> None:
        with pytest.raises(NotADirectoryError):
            os.listdir(tmp_path / "file")

    (tmp_path / "file").touch()
    (record,) = asked(ask)
    assert (record.kind, record.found) == ("exists", True)


def test_what_the_importer_asks_and_what_lies_with_libraries_is_not_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_late.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert asked(lambda: importlib.import_module("imported_late")) == []
    assert asked(lambda: importlib.metadata.packages_distributions()) == []
    assert asked(lambda: (os.path.exists(os.__file__), os.path.exists(torch_file()), os.listdir("/proc/self"))) == []


def torch_file() -> str:
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    return spec.origin


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    before = os.stat, os.lstat, os.access
    asked(lambda: shutil.copytree(tmp_path, tmp_path / "copy"))
    assert (os.stat, os.lstat, os.access) == before


ASKS = """
import os
import tidalctl
import torch

HERE = os.path.dirname(__file__)
os.path.exists(os.path.join(HERE, "at import"))
os.listdir(HERE)


@tidalctl.init
def load(event):
    return {"weight": torch.ones(2) * os.path.exists("in init")}


def handler(event, context):
    try:
        open(os.path.join(HERE, "tried"))
    except FileNotFoundError:
        pass
    return [load(event)["weight"].sum().item(), sorted(os.listdir("project"))]
"""


def test_a_trace_holds_them_by_phase(tmp_path: Path) -> None:
    write_project(tmp_path / "project", ASKS)
    tidalctl("trace", "project/app.py", "--event", "{}", cwd=tmp_path).ok()
    found = [record for record in read_trace(tmp_path / "app.trace").of(PathAsked) if record.path.startswith(str(tmp_path))]
    noted = [(os.path.basename(record.given), record.phase, record.kind, record.found) for record in found]
    assert [note for note in noted if note[0] != "app.py"] == [
        ("at import", "import", "exists", False),
        ("project", "import", "listed", True),
        ("in init", "init", "exists", False),
        ("project", "handler", "listed", True),
        ("tried", "handler", "exists", False),
    ]
