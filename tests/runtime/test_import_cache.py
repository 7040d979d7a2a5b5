"""What imports work out anew each time: the outcome that a bundle holds is the one that Python would come to."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Chain, Done, python, tidalctl, write_project

from tidalctl.artifacts.bundle.manifest import IMPORT_CACHE

# a library of the name and kind of which recall.SCANS knows one
IMPORT_UTILS = '''
import os
from functools import lru_cache

BASE_FILE_REQUIREMENTS = {}


@lru_cache
def create_import_structure_from_path(module_path):
    """Names of sources, with the first word of each."""
    found = {}
    if os.path.isfile(module_path):
        module_path = os.path.dirname(module_path)
    with os.scandir(module_path) as entries:
        for entry in entries:
            if entry.name == "__pycache__":
                continue
            if entry.is_dir():
                found[entry.name] = create_import_structure_from_path(entry.path)
            elif entry.name.endswith(".py"):
                with open(entry.path) as file:
                    found[frozenset((entry.name,))] = {file.read().split(" ")[0]}
    return found
'''
MODELS = """
from pathlib import Path

from transformers.utils.import_utils import create_import_structure_from_path

FOUND = create_import_structure_from_path(Path(__file__).parent)
AGAIN = create_import_structure_from_path(__file__)
"""
LIBRARY = {
    "transformers/__init__.py": "",
    "transformers/utils/__init__.py": "",
    "transformers/utils/import_utils.py": IMPORT_UTILS,
    "transformers/models/__init__.py": MODELS,
    "transformers/models/one/__init__.py": "one = 1\n",
    "transformers/models/one/modeling_one.py": "seen = 1\n",
    "transformers/models/two/modeling_two.py": "seen = 2\n",
}
APP = r"""
import collections
import dataclasses
import re
import sys
from functools import lru_cache
from pathlib import Path

import tidalctl
import torch
import transformers.models
from transformers.utils.import_utils import create_import_structure_from_path

PATTERN = re.compile(r"(?P<word>[a-zä]+)[\d]{2,3}?|x(?=y)", re.IGNORECASE)
DATA = re.compile(rb"[\x00-\x7f]+\xff")
OWN = re.compile(re.escape(__file__))
Pair = collections.namedtuple("Pair", "one two", defaults=[2])


@dataclasses.dataclass(order=True, frozen=True)
class Point:
    x: int
    y: list = dataclasses.field(default_factory=list)


def plain(value):
    if isinstance(value, dict):
        return sorted([repr(sorted(key)) if isinstance(key, frozenset) else key, plain(item)] for key, item in value.items())
    return sorted(value)


def what_compiles():
    from re import _compiler

    return ["exec" in vars(dataclasses), "eval" in vars(collections), _compiler.compile.__module__]


@tidalctl.init(static=True)
def load(event):
    return torch.ones(2)


def handler(event, context):
    load(event)
    point = Point(3)
    try:
        point.x = 4
        told = ""
    except dataclasses.FrozenInstanceError as error:
        told = f"{error} {error.__traceback__.tb_next.tb_frame.f_code.co_filename}"
    yield [repr(point), Point(1) < Point(2), hash(Pair(1)), repr(Pair(1)), told, Point.__init__.__code__.co_filename]
    yield [PATTERN.pattern, PATTERN.flags, PATTERN.groupindex["word"], PATTERN.findall("äb12 xy Q123"), bool(DATA.match(b"a\xff"))]
    yield [plain(transformers.models.FOUND), plain(transformers.models.AGAIN)]
    cached = create_import_structure_from_path
    yield [cached.__wrapped__.__code__.co_name, cached.__wrapped__.__defaults__, cached.__wrapped__.__doc__]
    late = dataclasses.make_dataclass("Late", ["z"])
    yield [repr(late(5)), re.compile("late+").findall("latee"), what_compiles()]
"""


class Made:
    """A chain whose function imports the library, which lies on PYTHONPATH."""

    def __init__(self, folder: Path) -> None:
        self.chain = Chain(folder, [{}])
        self.library = folder / "site-packages"
        self.env = {"PYTHONPATH": str(self.library)}

    def run(self, *options: str) -> Done:
        return tidalctl("run", self.chain.bundle, "--event", "{}", "--json", *options, cwd=self.chain.folder, env=self.env)

    def plain(self) -> Any:
        script = "import json, sys\nsys.path.insert(0, sys.argv[1])\nimport app\nprint(json.dumps(list(app.handler({}, None))))"
        return json.loads(python(script, self.chain.project, cwd=self.chain.folder, env=self.env).ok().out.splitlines()[-1])


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Nobody may change it: `made` is a copy."""
    folder = tmp_path_factory.mktemp("recall")
    library = write_project(folder / "site-packages", LIBRARY)
    write_project(folder / "project", {"app.py": APP})
    for command in (("trace", "project/app.py", "--event", "{}"), ("compile", "app.trace")):
        tidalctl(*command, cwd=folder, env={"PYTHONPATH": str(library)}).ok()
    return Made(folder)


@pytest.fixture
def made(compiled: Made, tmp_path: Path) -> Made:
    shutil.copytree(compiled.chain.folder, tmp_path / "made")
    return Made(tmp_path / "made")


def test_what_is_recalled_is_what_python_would_have_made(compiled: Made) -> None:
    report, plainly = compiled.run().report, compiled.plain()
    assert report["output"] == plainly
    assert report["output"][-1][-1] == [False, False, "re._compiler"], "after the first output Python compiles by itself"
    assert report["import_cache"]["texts"] > 100
    assert report["import_cache"]["patterns"] > 20
    assert (report["import_cache"]["scans"], report["import_cache"]["changed"]) == (2, 0)
    eagerly = compiled.run("--eager").report
    assert (eagerly["output"], eagerly["cause"]) == (plainly, "eager-asked-for")
    assert set(eagerly["import_cache"].values()) == {0}


def test_inspect_tells_what_is_recalled(compiled: Made) -> None:
    folder = compiled.chain.folder
    told = json.loads(tidalctl("inspect", compiled.chain.bundle, "--json", cwd=folder).ok().out)["import_cache"]
    assert [scan["path"] for scan in told["scans"]] == ["transformers/models", "transformers/models/__init__.py"]
    assert "transformers/models holds" in " ".join(tidalctl("inspect", compiled.chain.bundle, cwd=folder).ok().out.split())


@pytest.mark.parametrize("change", ["edited", "added", "gone"])  # how changes are noticed: artifacts/test_import_cache_file.py
def test_a_folder_that_has_changed_is_looked_through_again(made: Made, change: str) -> None:
    models = made.library / "transformers/models"
    if change == "edited":
        (models / "one/modeling_one.py").write_text("SEEN = 1\n")
    elif change == "added":
        write_project(models / "three", {"modeling_three.py": "seen = 3\n"})
    else:
        (models / "one/modeling_one.py").unlink()
    report = made.run().report
    assert report["output"] == made.plain()
    assert (report["import_cache"]["scans"], report["import_cache"]["changed"]) == (0, 1)


def test_a_changed_function_looks_through_its_folder_itself(made: Made) -> None:
    source = made.library / "transformers/utils/import_utils.py"
    source.write_text(source.read_text().replace('split(" ")[0]', "strip()"))
    report = made.run().report
    assert report["output"] == made.plain()
    assert report["import_cache"]["scans"] == 0


def test_a_function_that_may_look_at_more_than_the_sources_is_not_recalled(tmp_path: Path) -> None:
    asks = IMPORT_UTILS.replace("found = {}", "found = {'home': {os.environ['HOME_NAME']: set()}}")
    library = write_project(tmp_path / "site-packages", LIBRARY | {"transformers/utils/import_utils.py": asks})
    write_project(tmp_path / "project", {"app.py": APP})
    made = Made(tmp_path)
    for command in (("trace", "project/app.py", "--event", "{}"), ("compile", "app.trace")):
        tidalctl(*command, cwd=tmp_path, env={"PYTHONPATH": str(library), "HOME_NAME": "here"}).ok()
    made.env["HOME_NAME"] = "there"
    report = made.run().report
    assert report["import_cache"]["scans"] == 0
    assert report["output"] == made.plain()
    assert "there" in json.dumps(report["output"])


def test_no_path_of_the_machine_is_in_what_is_recalled(compiled: Made) -> None:
    """The function makes a pattern of its own file's name, as torch does of its files'."""
    data = (compiled.chain.bundle / IMPORT_CACHE).read_bytes().replace(b"\\", b"")
    for path in (compiled.chain.project, compiled.chain.folder, sys.prefix, sys.base_prefix):
        assert str(path).encode() not in data
