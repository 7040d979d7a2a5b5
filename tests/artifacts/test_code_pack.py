"""The code pack's bytes: the same whoever makes them, and refused where they are not what was made."""

import hashlib
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import python
from hypothesis import given
from hypothesis import strategies as st
from pack_cases import Packed, pack_library
from sample_artifacts import fixed, mutations

from tidalctl.artifacts.bundle.code_pack import (
    MAGIC,
    SCHEMA,
    PackedModule,
    PackFile,
    PackIndex,
    Segment,
    decode_index,
    head_digest,
    write_pack,
)
from tidalctl.artifacts.bundle.manifest import PACK
from tidalctl.artifacts.errors import ArtifactError, Corrupt, NewerSchema, NotAnArtifact, OlderSchema, PathEscapes, Truncated

MAKE = """
import os, sys
from pathlib import Path

sys.path[:0] = [sys.argv[3], os.path.dirname(sys.argv[3])]
from pack_cases import imported, library_imports, trace_of
from tidalctl.compiler.code.code_pack import pack_code

library, bundle = Path(sys.argv[1]), Path(sys.argv[2])
bundle.mkdir()
if len(sys.argv) > 4:  # a process that has done a lot: strings interned, code kept, constants shared
    import argparse, ast, asyncio, decimal, email.message, inspect, typing
    kept = [compile(path.read_text(), str(path), "exec") for path in sorted(library.rglob("*.py"))]
    names = [sys.intern(word) for code in kept for word in code.co_names] * 3
files = sorted(path for path in library.rglob("*.py"))
records = [imported(".".join(path.relative_to(library).with_suffix("").parts).removesuffix(".__init__"), path) for path in files]
pack_code(trace_of(library / "project", records), bundle)
"""
NAMES = "argparse ast dataclasses inspect typing decimal _pydecimal difflib tarfile zipfile json/decoder"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    return pack_library(tmp_path_factory.mktemp("packed"))


def write_sample(path: Path, **changed: Any) -> str:
    """A pack of two modules in two segments, some of its index changed; returns the digest of its head."""
    modules = [PackedModule(name=name, file=f"{name}.py", package=False, size=1) for name in ("a", "b")]
    write_pack(path, "cb0d0d0a", 0, [([module], bytes(2**20 + 5)) for module in modules])
    if changed:
        pack = PackFile(path, head_digest(path))
        pack.close()
        text = msgspec.json.encode(msgspec.structs.replace(pack.index, **changed))
        path.write_bytes(MAGIC + len(text).to_bytes(8, "little") + text + bytes(2 * (2**20 + 5)))
    return head_digest(path)


def copy_of_standard_modules(folder: Path) -> Path:
    for name in NAMES.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(sysconfig.get_paths()["stdlib"], f"{name}.py"), folder / f"{name}.py")
    return folder


def test_the_same_sources_give_the_same_pack_in_any_process(tmp_path: Path) -> None:
    one = pack_library(tmp_path / "one")
    copy_of_standard_modules(one.library)
    other = shutil.copytree(one.library, tmp_path / "elsewhere" / "site-packages")
    python("import compileall, sys; compileall.compile_dir(sys.argv[1], quiet=1)", other, cwd=tmp_path).ok()
    here = str(Path(__file__).parents[1] / "support")
    makes = [
        (one.library, {"PYTHONHASHSEED": "1", "PYTHONDONTWRITEBYTECODE": "1"}, ()),
        (other, {"PYTHONHASHSEED": "2", "LC_ALL": "C"}, ("busy",)),
    ]
    for number, (library, env, busy) in enumerate(makes):
        python(MAKE, library, tmp_path / str(number), here, *busy, cwd=tmp_path, env=env).ok()
    assert not list(one.library.rglob("__pycache__"))
    packs = [(tmp_path / str(number) / PACK).read_bytes() for number in range(len(makes))]
    assert len(packs[0]) > 2**20
    assert [hashlib.sha256(pack).hexdigest() for pack in packs] == [hashlib.sha256(packs[0]).hexdigest()] * len(makes)
    assert str(tmp_path).encode() not in packs[0]


def test_segments_end_where_modules_do(packed: Packed) -> None:
    index = PackFile(packed.bundle / PACK, packed.digest).index
    assert [segment.offset for segment in index.segments] == [0, *(s.offset + s.length for s in index.segments[:-1])]
    assert {module.name for module in index.modules if module.late} == {"shelf.late"}
    assert len({module.segment for module in index.modules}) == len(index.segments) > 1


LIES = {
    "a magic number of something else": (lambda data: b"PK\3\4" + data[4:], NotAnArtifact),
    "nothing": (lambda data: b"", Truncated),
    "a piece of the head": (lambda data: data[:12], Truncated),
    "a piece of the index": (lambda data: data[:60], Truncated),
    "no end": (lambda data: data[:-1], Truncated),
    "more than its end": (lambda data: data + b"!", Corrupt),
    "an index longer than the file": (lambda data: data[:8] + b"\xff" * 8 + data[16:], Truncated),
    "a changed index": (lambda data: data.replace(b'"a.py"', b'"c.py"'), Corrupt),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_pack_that_lies_is_refused(tmp_path: Path, lie: str) -> None:
    digest = write_sample(tmp_path / PACK)
    change, error = LIES[lie]
    (tmp_path / PACK).write_bytes(change((tmp_path / PACK).read_bytes()))
    with pytest.raises(error):
        PackFile(tmp_path / PACK, digest)


def module(**changed: Any) -> PackedModule:
    return msgspec.structs.replace(PackedModule(name="a.b", file="a/b.py", package=False, size=1), **changed)


def segment(offset: int, length: int) -> Segment:
    return Segment(offset=offset, length=length, blake3="0" * 64)


WRONG = {
    "a newer schema": ({"schema": SCHEMA + 1}, NewerSchema),
    "an older schema": ({"schema": SCHEMA - 1}, OlderSchema),
    "a segment before the file": ({"segments": (segment(-1, 9),)}, Corrupt),
    "a gap": ({"segments": (segment(0, 9), segment(10, 9))}, Corrupt),
    "segments over one another": ({"segments": (segment(0, 9), segment(8, 9))}, Corrupt),
    "an empty segment": ({"segments": (segment(0, 0),)}, Corrupt),
    "more than the file": ({"segments": (segment(0, 2**62),), "modules": ()}, Truncated),
    "a segment that is not there": ({"modules": (module(segment=7),)}, Corrupt),
    "a module at a place that is not there": ({"modules": (module(place=1),)}, Corrupt),
    "two modules at one place": ({"modules": (module(), module(name="a.c", file="a/c.py"))}, Corrupt),
    "two of one name": ({"modules": (module(), module(place=1))}, Corrupt),
    "another's file": ({"modules": (module(file="c.py"),)}, Corrupt),
    "a path outside": ({"modules": (module(file="../a/b.py"),)}, PathEscapes),
}


@pytest.mark.parametrize("lie", WRONG)
def test_an_index_that_lies_is_refused(tmp_path: Path, lie: str) -> None:
    changed, error = WRONG[lie]
    digest = write_sample(tmp_path / PACK, **changed)
    with pytest.raises(error):
        PackFile(tmp_path / PACK, digest)


def test_a_damaged_pack_is_refused_or_read_right(tmp_path: Path) -> None:
    digest = write_sample(tmp_path / PACK)
    data = (tmp_path / PACK).read_bytes()
    sound = PackFile(tmp_path / PACK, digest)
    segments = [sound.read(number) for number in range(2)]
    for damaged in [*mutations(data[:400], 60), *mutations(data, 40)]:
        (tmp_path / PACK).write_bytes(damaged)
        try:
            pack = PackFile(tmp_path / PACK, digest)
            assert [pack.read(number) for number in range(2)] == segments
        except ArtifactError:
            continue


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=9) | st.dictionaries(st.sampled_from(PackIndex.__struct_fields__), inner, max_size=5)
    ),
    max_leaves=20,
)


@fixed
@given(st.binary(max_size=200) | JSON.map(msgspec.json.encode))
def test_whatever_stands_for_an_index_is_read_or_refused(text: bytes) -> None:
    try:
        assert isinstance(decode_index(text, Path(PACK)), PackIndex)
    except ArtifactError:
        pass
