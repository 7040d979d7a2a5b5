"""Ways to name a function, and what travels with it: modules, data files, arguments, an init that nobody marked."""

import shutil
from collections.abc import Callable
from pathlib import Path

from conftest import Chain, tidalctl, write_project

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

AT_IMPORT = """
import torch
import tidalctl


class Holder:
    def __init__(self, weight):
        self.weight = weight


@tidalctl.init(static=True)
def load(event=None):
    return Holder(torch.arange(3.0))


STATE = load()


def handler(event, context):
    return [STATE.weight.tolist(), isinstance(STATE, Holder)]
"""


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


def test_an_init_that_is_called_while_its_module_is_imported_is_answered_too(chain: Callable[..., Chain]) -> None:
    made = chain(AT_IMPORT)
    report = made.run({})
    assert report["output"] == made.plain({}) == [[0.0, 1.0, 2.0], True]
    assert report["strategy"] == "snapshot"


def test_a_module_of_a_package_that_is_named_by_its_file_is_told_its_other_name(tmp_path: Path) -> None:
    write_project(tmp_path, {"package/__init__.py": "", "package/a.py": "", "package/app.py": "from . import a\n"})
    done = tidalctl("trace", "package/app.py", "--event", "{}", cwd=tmp_path)
    done.one_error("app.py is a module of a package", "tidalctl trace package.app:handler")


OPENS = """
from pathlib import Path
import tidalctl
import torch

@tidalctl.init(static=True)
def load(event):
    return torch.ones(2)

def handler(event, context):
    own = (Path(__file__).parent / "styles" / (event["style"] + ".txt")).read_text()
    return [load(event).tolist(), own, Path(event["folder"], "given.txt").read_text()]
"""


def test_a_file_whose_absolute_path_an_event_gives_is_not_shipped_and_one_beside_the_source_is(
    chain: Callable[..., Chain], tmp_path: Path
) -> None:
    folder = tmp_path / "project" / "requests"
    files = {"app.py": OPENS, "styles/a.txt": "a", "styles/b.txt": "b", "requests/given.txt": "secret"}
    made = chain(files, {"style": "a", "folder": str(folder)})
    shipped = {path.name for path in (made.bundle / "code").rglob("*") if path.is_file()}
    assert shipped == {"app.py", "a.txt", "b.txt"}
    assert made.run({"style": "b", "folder": str(folder)})["output"] == [[1.0, 1.0], "b", "secret"]
