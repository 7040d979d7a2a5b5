"""What imports work out anew each time: the outcome that a bundle holds is the one that Python would come to."""

import json
import os
import shutil
import sys
import types
from pathlib import Path

import pytest
from conftest import Chain, tidalctl, write_project

from tidalctl.artifacts.bundle.manifest import IMPORT_CACHE
from tidalctl.tracer.process.import_work import WorkRecorder

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
    "transformers/utils/output_capturing.py": "_CAN_RECORD_REGISTRY = {}\n",  # of which library_registries knows
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
from transformers.utils import output_capturing
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
    output_capturing._CAN_RECORD_REGISTRY["Model"] = "as of Model"
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
    yield output_capturing._CAN_RECORD_REGISTRY.get("Model")
    late = dataclasses.make_dataclass("Late", ["z"])
    yield [repr(late(5)), re.compile("late+").findall("latee"), what_compiles()]
"""


def of_library(folder: Path) -> Chain:
    """The chain in a folder whose function imports the library, which lies on PYTHONPATH."""
    return Chain(folder, [{}], env={"PYTHONPATH": str(folder / "site-packages")})


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Nobody may change it: `made` is a copy."""
    made = of_library(tmp_path_factory.mktemp("recall"))
    write_project(made.folder / "site-packages", LIBRARY)
    write_project(made.project, APP)
    return made.make()


@pytest.fixture
def made(compiled: Chain, tmp_path: Path) -> Chain:
    return of_library(Path(shutil.copytree(compiled.folder, tmp_path / "made")))


def test_what_is_recalled_is_what_python_would_have_made(compiled: Chain) -> None:
    report, plainly = compiled.run({}), compiled.plain({})
    assert report["output"] == plainly
    assert (report["strategy"], plainly[-2]) == ("snapshot", "as of Model"), "what the library notes is noted of a restored one"
    assert plainly[-1][-1] == [False, False, "re._compiler"], "after the first output Python compiles by itself"
    assert report["import_cache"]["texts"] > 100
    assert report["import_cache"]["patterns"] > 20
    assert (report["import_cache"]["scans"], report["import_cache"]["changed"]) == (2, 0)
    eagerly = compiled.run({}, "--eager")
    assert (eagerly["output"], eagerly["cause"]) == (plainly, "eager-asked-for")
    assert set(eagerly["import_cache"].values()) == {0}


def test_inspect_tells_what_is_recalled(compiled: Chain) -> None:
    told = json.loads(tidalctl("inspect", compiled.bundle, "--json", cwd=compiled.folder).ok().out)["import_cache"]
    assert [scan["path"] for scan in told["scans"]] == ["transformers/models", "transformers/models/__init__.py"]
    assert "transformers/models holds" in " ".join(tidalctl("inspect", compiled.bundle, cwd=compiled.folder).ok().out.split())


def test_a_folder_that_has_changed_is_looked_through_again(made: Chain) -> None:
    """How else changes are noticed: artifacts/test_import_cache_file.py."""
    (made.folder / "site-packages/transformers/models/one/modeling_one.py").write_text("SEEN = 1\n")
    report = made.run({})
    assert report["output"] == made.plain({})
    assert (report["import_cache"]["scans"], report["import_cache"]["changed"]) == (0, 1)


def test_a_folder_of_another_environment_is_served(made: Chain) -> None:
    for path in (made.folder / "site-packages").rglob("*"):
        os.utime(path, (2_000_000_000, 2_000_000_000))
    report = made.run({})
    assert report["output"] == made.plain({})
    assert (report["import_cache"]["scans"], report["import_cache"]["changed"]) == (2, 0)


def test_a_changed_function_looks_through_its_folder_itself(made: Chain) -> None:
    source = made.folder / "site-packages/transformers/utils/import_utils.py"
    source.write_text(source.read_text().replace('split(" ")[0]', "strip()"))
    report = made.run({})
    assert report["output"] == made.plain({})
    assert report["import_cache"]["scans"] == 0


@pytest.mark.parametrize(("made", "noted"), [("{}", 1), ("{'home': {os.environ['HOME']: set()}}", 0)])
def test_a_function_that_may_look_at_more_than_the_sources_is_not_recalled(tmp_path: Path, made: str, noted: int) -> None:
    module = types.ModuleType("transformers.utils.import_utils")
    exec(IMPORT_UTILS.replace("found = {}", f"found = {made}"), vars(module))
    with WorkRecorder() as recorder:
        recorder.imported(module)
        module.create_import_structure_from_path(str(tmp_path))
    assert len(recorder.work().scans) == noted


def test_no_path_of_the_machine_is_in_what_is_recalled(compiled: Chain) -> None:
    """The function makes a pattern of its own file's name, as torch does of its files'."""
    data = (compiled.bundle / IMPORT_CACHE).read_bytes().replace(b"\\", b"")
    for path in (compiled.project, compiled.folder, sys.prefix, sys.base_prefix):
        assert str(path).encode() not in data
