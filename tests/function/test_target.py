"""Ways to name a function, and what travels with it: modules, data files, arguments, an init that nobody marked."""

import shutil
from pathlib import Path

from conftest import tidalctl, write_project

PACKAGE = {
    "package/__init__.py": "",
    "package/served.py": """
import sys
from pathlib import Path

import torch
from .words import WORD


def load(event):
    return {"weight": torch.arange(4.0)}


def answer(event, context):
    data = (Path(__file__).parent / "data.txt").read_text()
    return [load(event)["weight"].sum().item(), WORD, data, sys.argv[1:], event["text"]]
""",
    "package/words.py": "WORD = 'word'\n",
    "package/data.txt": "data",
}
EVENT = '{"text": "żółw"}'


def test_a_module_with_an_unmarked_init_data_and_arguments_runs_without_its_project(tmp_path: Path) -> None:
    project = write_project(tmp_path / "project", PACKAGE)
    tidalctl(
        "trace", "package.served:answer", "--init", "package.served:load", "-e", EVENT, "-o", "../a.trace", "--", "--mode", "x",
        cwd=project,
    ).ok()  # fmt: skip
    tidalctl("compile", "a.trace", cwd=tmp_path).ok()
    shutil.rmtree(project)
    report = tidalctl("run", "a.bundle", "--event", EVENT, "--json", "--", "--mode", "x", cwd=tmp_path).report
    assert report["output"] == [6.0, "word", "data", ["--mode", "x"], "żółw"]
    assert report["strategy"] == "snapshot"


def test_a_module_of_a_package_that_is_named_by_its_file_is_told_its_other_name(tmp_path: Path) -> None:
    write_project(tmp_path, {"package/__init__.py": "", "package/a.py": "", "package/app.py": "from . import a\n"})
    done = tidalctl("trace", "package/app.py", "--event", "{}", cwd=tmp_path)
    done.one_error("app.py is a module of a package", "tidalctl trace package.app:handler")
