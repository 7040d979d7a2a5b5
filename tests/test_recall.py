"""What imports work out anew each time: the outcome that a bundle holds is the one that Python would come to."""

import json
import marshal
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Chain, Done, python, tidalctl, write_project
from hypothesis import given
from hypothesis import strategies as st

from tidalctl.artifacts.errors import Corrupt
from tidalctl.artifacts.manifest import RECALL
from tidalctl.artifacts.recall import (
    MAGIC,
    NotPlain,
    Scan,
    decode_recalled,
    encode_recalled,
    from_plain,
    is_as_stamped,
    read_stamp,
    summary_of,
    to_plain,
)
from tidalctl.compiler.recall import automaton

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
DECORATOR = """
import functools


def lru_cache(function):
    @functools.wraps(function)
    def call(path):
        return function(path)

    return call
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
    report = compiled.run().report
    assert report["output"] == compiled.plain()
    assert report["recalled"]["texts"] > 100
    assert report["recalled"]["patterns"] > 20
    assert (report["recalled"]["scans"], report["recalled"]["changed"]) == (2, 0)


def test_after_the_first_output_python_compiles_by_itself(compiled: Made) -> None:
    assert compiled.run().report["output"][-1][-1] == [False, False, "re._compiler"]


def test_an_eager_run_recalls_nothing(compiled: Made) -> None:
    report = compiled.run("--eager").report
    assert report["output"] == compiled.plain()
    assert set(report["recalled"].values()) == {0}


def test_inspect_tells_what_is_recalled(compiled: Made) -> None:
    folder = compiled.chain.folder
    told = json.loads(tidalctl("inspect", compiled.chain.bundle, "--json", cwd=folder).ok().out)["recall"]
    assert [scan["path"] for scan in told["scans"]] == ["transformers/models", "transformers/models/__init__.py"]
    assert "transformers/models holds" in " ".join(tidalctl("inspect", compiled.chain.bundle, cwd=folder).ok().out.split())


@pytest.mark.parametrize(
    "change",
    [
        "a source edited",
        "a source of the same size",
        "a source added",
        "a source gone",
        "a folder added",
        "a source made a folder",
    ],
)
def test_a_folder_that_has_changed_is_looked_through_again(made: Made, change: str) -> None:
    models = made.library / "transformers/models"
    one, two = models / "one/modeling_one.py", models / "two"
    if change == "a source edited":
        one.write_text("other = 3\nmore = 4\n")
    elif change == "a source of the same size":
        one.write_text("SEEN = 1\n")
    elif change == "a source added":
        (two / "another.py").write_text("new = 1\n")
    elif change == "a source gone":
        one.unlink()
    elif change == "a folder added":
        write_project(models / "three", {"modeling_three.py": "seen = 3\n"})
    else:
        one.unlink()
        write_project(one, {"inside.py": "seen = 4\n"})
    report = made.run().report
    assert report["output"] == made.plain()
    assert (report["recalled"]["scans"], report["recalled"]["changed"]) == (0, 1)


def test_bytecode_that_was_cached_in_a_folder_changes_nothing(made: Made) -> None:
    for folder in ("models", "models/one", "models/two"):
        write_project(made.library / "transformers" / folder / "__pycache__", {"fresh.pyc": "cached"})
    report = made.run().report
    assert report["output"] == made.plain()
    assert report["recalled"]["scans"] == 2


def test_a_changed_function_looks_through_its_folder_itself(made: Made) -> None:
    source = made.library / "transformers/utils/import_utils.py"
    source.write_text(source.read_text().replace('split(" ")[0]', "strip()"))
    report = made.run().report
    assert report["output"] == made.plain()
    assert report["recalled"]["scans"] == 0


def test_a_function_that_may_look_at_more_than_the_sources_is_not_recalled(tmp_path: Path) -> None:
    asks = IMPORT_UTILS.replace("found = {}", "found = {'home': {os.environ['HOME_NAME']: set()}}")
    library = write_project(tmp_path / "site-packages", LIBRARY | {"transformers/utils/import_utils.py": asks})
    write_project(tmp_path / "project", {"app.py": APP})
    made = Made(tmp_path)
    for command in (("trace", "project/app.py", "--event", "{}"), ("compile", "app.trace")):
        tidalctl(*command, cwd=tmp_path, env={"PYTHONPATH": str(library), "HOME_NAME": "here"}).ok()
    made.env["HOME_NAME"] = "there"
    report = made.run().report
    assert report["recalled"]["scans"] == 0
    assert report["output"] == made.plain()
    assert "there" in json.dumps(report["output"])


def test_a_function_that_functools_does_not_cache_is_not_recalled(made: Made) -> None:
    """One that was cached in the trace, and is not any more: its module's source has changed."""
    source = made.library / "transformers/utils/import_utils.py"
    source.write_text(source.read_text().replace("from functools import lru_cache", DECORATOR))
    report = made.run().report
    assert (report["recalled"]["scans"], report["output"]) == (0, made.plain())
    for command in (("trace", "project/app.py", "--event", "{}"), ("compile", "app.trace")):
        tidalctl(*command, "--force", cwd=made.chain.folder, env=made.env).ok()
    report = made.run().report
    assert (report["recalled"]["scans"], report["output"]) == (0, made.plain())


def test_no_path_of_the_machine_is_in_what_is_recalled(compiled: Made) -> None:
    """The function makes a pattern of its own file's name, as torch does of its files'."""
    data = (compiled.chain.bundle / RECALL).read_bytes().replace(b"\\", b"")
    for path in (compiled.chain.project, compiled.chain.folder, sys.prefix, sys.base_prefix):
        assert str(path).encode() not in data


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_file_is_an_error_before_anything_of_it_is_used(made: Made, damage: str) -> None:
    file = made.chain.bundle / RECALL
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(data[:-1] if damage == "cut" else data)
    made.run().one_error(RECALL)
    verified = tidalctl("verify", made.chain.bundle, cwd=made.chain.folder, env=made.env)
    assert verified.code != 0
    assert RECALL in verified.err + verified.out


@given(st.binary(max_size=20).filter(lambda data: not data.startswith(MAGIC)))
def test_bytes_that_are_nothing_of_the_kind_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        decode_recalled(data, Path(RECALL))


def test_what_is_cut_short_anywhere_is_corrupt() -> None:
    whole = encode_recalled({("exec", "x = 1"): b"code"}, {("a+", 0): automaton("a+", 0) or pytest.fail()}, [])
    assert decode_recalled(whole, Path(RECALL))
    for length in range(len(MAGIC) + 4, len(whole)):
        with pytest.raises(Corrupt):
            decode_recalled(whole[:length], Path(RECALL))


def test_what_another_python_made_is_let_be() -> None:
    other = MAGIC + b"\0\0\r\n" + marshal.dumps(({}, {}, {}), 2)
    assert decode_recalled(other, Path(RECALL)) is None
    assert summary_of(other, Path(RECALL)) is None


def test_the_summary_is_read_without_anything_else_being_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles of strangers are looked at, and marshal is not made for their bytes."""
    scan = Scan("m", "f", "m/folder", False, {})
    whole = encode_recalled({("exec", "x = 1"): b"code"}, {("a+", 0): automaton("a+", 0) or pytest.fail()}, [scan])
    monkeypatch.setattr(marshal, "loads", lambda data: pytest.fail("decoded"))
    told = {"texts": 1, "patterns": 1, "scans": [{"module": "m", "path": "m/folder"}]}
    assert summary_of(whole, Path(RECALL)) == told


@pytest.mark.parametrize(
    "summary",
    [
        b'{"texts": 1e999, "patterns": 0, "scans": []}',
        b'{"texts": Infinity, "patterns": 0, "scans": []}',
        b'{"texts": 1, "patterns": 1}',
        b'{"texts": 1, "patterns": 1, "scans": [{"module": "m", "path": "\\ud800"}]}',
        b'{"texts": 1, "patterns": 1, "scans": ' + b"[" * 10000 + b"]" * 10000 + b"}",
        b"\xff{}",
    ],
)
def test_a_summary_of_something_else_is_corrupt(summary: bytes) -> None:
    head = encode_recalled({}, {}, [])[: len(MAGIC) + 4]
    with pytest.raises(Corrupt):
        summary_of(head + len(summary).to_bytes(4, "little") + summary, Path(RECALL))


@given(st.binary(max_size=60), st.integers(0, 70))
def test_a_summary_of_hostile_bytes_is_corrupt(summary: bytes, length: int) -> None:
    head = encode_recalled({}, {}, [])[: len(MAGIC) + 4]
    with pytest.raises(Corrupt):
        summary_of(head + length.to_bytes(4, "little") + summary, Path(RECALL))


def test_the_same_work_gives_the_same_bytes_in_every_process() -> None:
    script = """
import hashlib
from tidalctl.artifacts.recall import Scan, encode_recalled
from tidalctl.compiler.recall import _bytecode, automaton
texts = ["def f(a, b={1, 2, 'x'}):\\n return a in {'one', 'two', 'three'}", "x = 1"]
patterns = [(r"[^\\W\\d_]+|(?P<n>[a-zA-Z\\u0400-\\u04ff])", 2), (b"a|b|c", 0)]
made = {frozenset(("a", "b", "c")): {"x": {"one", "two", "three"}}, "z": [1, (2, None)]}
data = encode_recalled(
    {("exec", text): _bytecode("exec", text) for text in texts}, {key: automaton(*key) for key in patterns},
    [Scan("m", "f", path, False, made) for path in ("two", "one")],
)
print(hashlib.sha256(data).hexdigest())
"""
    digests = {python(script, cwd=Path.cwd(), env={"PYTHONHASHSEED": seed}).ok().out for seed in ("0", "1", "77")}
    assert len(digests) == 1


ATOMS = st.sampled_from(
    ["a", "b", ".", r"\d", r"\W", "[a-f]", "[^xy]", "ß", "K", r"\b", "^", "$", "(?i:k)", "(?:ab)", "(c)", "(?=d)"]
)
TIMES = st.sampled_from(["", "*", "+", "?", "{2}", "{1,3}?"])
PATTERNS = st.lists(st.tuples(ATOMS, TIMES).map("".join), min_size=1, max_size=6).map("".join) | st.text(
    "ab|()[]^-\\d*?", max_size=8
)
FLAGS = st.sampled_from([0, re.IGNORECASE, re.MULTILINE, re.DOTALL | re.ASCII, re.VERBOSE])


@given(PATTERNS, FLAGS, st.text("abcdkKß xy1\n", max_size=20))
def test_an_automaton_is_the_one_that_re_makes(pattern: str, flags: int, text: str) -> None:
    from re import _compiler  # type: ignore[attr-defined]

    found = automaton(pattern, int(flags))
    if found is None:
        return
    made = _compiler._sre.compile(pattern, *found)
    assert made == re.compile(pattern, flags)
    assert (made.flags, made.groups, made.groupindex) == (re.compile(pattern, flags).flags, made.groups, made.groupindex)
    assert [match.span() for match in made.finditer(text)] == [match.span() for match in re.finditer(pattern, text, flags)]


@pytest.mark.parametrize(
    ("pattern", "flags"), [("[[a]", 0), (b"\\w", re.LOCALE), ("a", re.DEBUG), ("(", 0), ("a{2,1}", 0), (b"(?L)a", 0)]
)
def test_what_re_speaks_of_and_what_hangs_on_the_locale_is_not_recalled(pattern: Any, flags: int) -> None:
    assert automaton(pattern, int(flags)) is None


HASHABLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
)
PLAIN_DATA = st.recursive(
    HASHABLE | st.sets(HASHABLE, max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HASHABLE, inner, max_size=3),
)


@given(PLAIN_DATA)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    again = from_plain(json.loads(json.dumps(to_plain(value))))
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize("value", [object(), {"a": [b"bytes"]}, {1: {2: print}}, range(3)])
def test_what_is_more_than_plain_data_is_refused(value: Any) -> None:
    with pytest.raises(NotPlain):
        to_plain(value)


def test_a_stamp_is_of_the_sources_and_folders_alone(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "models", {"a.py": "a", "one/b.py": "b", "one/note.txt": "text"})
    stamp = read_stamp(str(folder))
    assert set(stamp) == {"/", "a.py", "one/", "one/b.py"}
    (folder / "one/note.txt").write_text("another text")
    write_project(folder, {"one/new.txt": "text", "__pycache__/a.pyc": "c"})
    assert is_as_stamped(str(folder), stamp)
    assert not is_as_stamped(str(tmp_path / "elsewhere"), stamp)
    (folder / "one/c.py").write_text("c")
    assert not is_as_stamped(str(folder), stamp)
