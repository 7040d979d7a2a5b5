"""What is recalled, as a file and as values: it comes back as it was, or is refused."""

import json
import marshal
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import python, write_project
from hypothesis import given
from hypothesis import strategies as st

from tidalctl.artifacts.bundle.import_cache import (
    MAGIC,
    NotPlain,
    Scan,
    decode_import_cache,
    encode_import_cache,
    from_plain,
    names_in,
    names_of,
    read_contents,
    scans_in,
    summary_of,
    to_plain,
)
from tidalctl.artifacts.bundle.manifest import IMPORT_CACHE
from tidalctl.artifacts.errors import Corrupt
from tidalctl.compiler.code.import_cache import automaton


@given(st.binary(max_size=20).filter(lambda data: not data.startswith(MAGIC)))
def test_bytes_that_are_nothing_of_the_kind_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        decode_import_cache(data, Path(IMPORT_CACHE))


def test_what_is_cut_short_anywhere_is_corrupt() -> None:
    whole = encode_import_cache({("exec", "x = 1"): b"code"}, {("a+", 0): automaton("a+", 0) or pytest.fail()}, [], {})
    assert decode_import_cache(whole, Path(IMPORT_CACHE))
    for length in range(len(MAGIC) + 4, len(whole)):
        with pytest.raises(Corrupt):
            decode_import_cache(whole[:length], Path(IMPORT_CACHE))


def test_what_another_python_made_is_let_be() -> None:
    other = MAGIC + b"\0\0\r\n" + marshal.dumps(({}, {}, {}), 2)
    assert decode_import_cache(other, Path(IMPORT_CACHE)) is None
    assert summary_of(other, Path(IMPORT_CACHE)) is None


def test_the_summary_is_read_without_anything_else_being_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles of strangers are looked at, and marshal is not made for their bytes."""
    scan = Scan("m", "f", "m/path", False, {}, "m")
    whole = encode_import_cache(
        {("exec", "x = 1"): b"code"}, {("a+", 0): automaton("a+", 0) or pytest.fail()}, [scan], {"m": {}}
    )
    monkeypatch.setattr(marshal, "loads", lambda data: pytest.fail("decoded"))
    told = {"texts": 1, "patterns": 1, "scans": [{"module": "m", "path": "m/path"}]}
    assert summary_of(whole, Path(IMPORT_CACHE)) == told


@pytest.mark.parametrize(
    "summary",
    [
        b'{"texts": Infinity, "patterns": 0, "scans": []}',
        b'{"texts": 1, "patterns": 1}',
        b'{"texts": 1, "patterns": 1, "scans": [{"module": "m", "path": "\\ud800"}]}',
        b'{"texts": 1, "patterns": 1, "scans": ' + b"[" * 10000 + b"]" * 10000 + b"}",
        b"\xff{}",
    ],
)
def test_a_summary_of_something_else_is_corrupt(summary: bytes) -> None:
    head = encode_import_cache({}, {}, [], {})[: len(MAGIC) + 4]
    with pytest.raises(Corrupt):
        summary_of(head + len(summary).to_bytes(4, "little") + summary, Path(IMPORT_CACHE))


@given(st.binary(max_size=60), st.integers(0, 70))
def test_a_summary_of_hostile_bytes_is_corrupt(summary: bytes, length: int) -> None:
    head = encode_import_cache({}, {}, [], {})[: len(MAGIC) + 4]
    with pytest.raises(Corrupt):
        summary_of(head + length.to_bytes(4, "little") + summary, Path(IMPORT_CACHE))


def test_the_same_work_gives_the_same_bytes_in_every_process() -> None:
    script = """
import hashlib
from tidalctl.artifacts.bundle.import_cache import Scan, encode_import_cache
from tidalctl.compiler.code.import_cache import _bytecode, automaton
texts = ["def f(a, b={1, 2, 'x'}):\\n return a in {'one', 'two', 'three'}", "x = 1"]
patterns = [(r"[^\\W\\d_]+|(?P<n>[a-zA-Z\\u0400-\\u04ff])", 2), (b"a|b|c", 0)]
made = {frozenset(("a", "b", "c")): {"x": {"one", "two", "three"}}, "z": [1, (2, None)]}
data = encode_import_cache(
    {("exec", text): _bytecode("exec", text) for text in texts}, {key: automaton(*key) for key in patterns},
    [Scan("m", "f", path, False, made, path) for path in ("two", "one")],
    {path: {None: {"/": (0, "")}, ("n", "r"): {"x.py": (1, "d")}} for path in ("one", "two")},
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


def test_contents_are_those_of_sources_and_folders_alone(tmp_path: Path) -> None:
    folder = write_project(
        tmp_path / "models", {"a.py": "a", "one/b.py": "b", "one/note.txt": "text", "__pycache__/a.pyc": "c"}
    )
    found = read_contents(str(folder))
    assert set(found) == {"/", "a.py", "one/", "one/b.py"}
    assert names_of(found) == {"/": {"a.py", "one/"}, "one/": {"b.py"}}
    assert names_in(str(folder)) == {"a.py", "one/"}
    (folder / "a.py").write_text("b")
    assert read_contents(str(folder)) != found
    (folder / "a.py").write_text("a")
    assert read_contents(str(folder)) == found


def test_folders_come_back_with_the_distributions_of_their_sources() -> None:
    its = ("one-1.0.dist-info", "digest")
    folder = {its: {"a.py": (1, "x")}, None: {"/": (0, ""), "b.py": (2, "y")}}
    whole = encode_import_cache({}, {}, [Scan("m", "f", "m/path", False, {"a": 1}, "m")], {"m": folder, "unused": {}})
    decoded = decode_import_cache(whole, Path(IMPORT_CACHE))
    assert decoded is not None
    assert scans_in(decoded.scans["m"], Path(IMPORT_CACHE)) == ([Scan("m", "f", "m/path", False, {"a": 1}, "m")], {"m": folder})
