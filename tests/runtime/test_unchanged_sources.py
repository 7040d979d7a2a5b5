"""Another environment with the same packages serves the code pack: times differ, what was installed does not."""

import os
from pathlib import Path

import pytest
from conftest import distribution, write_project

from tidalctl.artifacts.bundle.code_pack import PackedModule
from tidalctl.artifacts.distributions import files_of, rows_digest, source_digest
from tidalctl.runtime.imports.unchanged_sources import UnchangedSources

SOURCE = "NAME = 'one'\n"
NOW, LATER = 2_000_000_000, 2_000_000_100


def installed(site: Path, source: str = SOURCE, written: int = NOW) -> Path:
    """Install a module and its distribution, whose RECORD is written at NOW."""
    write_project(site, {"one.py": source})
    record = distribution(site, "one", ["one.py", "one/native.so"]) / "RECORD"
    os.utime(site / "one.py", (written, written))
    os.utime(record, (NOW, NOW))
    return record


@pytest.fixture
def module(tmp_path: Path) -> tuple[PackedModule, list[tuple[str, str]]]:
    record = installed(tmp_path / "home").read_bytes()
    packed = PackedModule(
        name="one", file="one.py", package=False, size=len(SOURCE), digest=source_digest(SOURCE.encode()), record=0
    )
    return packed, [("one-1.0.dist-info", rows_digest(record))]


Module = tuple[PackedModule, list[tuple[str, str]]]


@pytest.mark.parametrize(
    ("source", "written", "same"),
    [
        (SOURCE, NOW - 50, True),
        (SOURCE, LATER, True),
        (SOURCE.replace("one", "two"), LATER, False),
        (SOURCE + "\n", NOW, False),
    ],
)
def test_a_source_is_told_by_size_record_and_content(
    module: Module, tmp_path: Path, source: str, written: int, same: bool
) -> None:
    installed(tmp_path / "there", source, written)
    packed, records = module
    assert UnchangedSources({"one.py": 5}, records).holds(packed, str(tmp_path / "there/one.py")) is same


def test_the_time_at_home_tells_without_reading_anything(module: Module, tmp_path: Path) -> None:
    packed, records = module
    place = tmp_path / "there/one.py"
    installed(tmp_path / "there", SOURCE.replace("one", "two"))
    assert UnchangedSources({"one.py": NOW}, records).holds(packed, str(place))


def test_a_record_of_other_files_vouches_for_nothing_and_content_tells(module: Module, tmp_path: Path) -> None:
    packed, records = module
    record = installed(tmp_path / "there", SOURCE.replace("one", "two"))
    record.write_text(record.read_text() + "more.py,sha256=x,1\n")
    os.utime(record, (LATER, LATER))
    assert not UnchangedSources({}, records).holds(packed, str(tmp_path / "there/one.py"))
    (tmp_path / "there/one.py").write_text(SOURCE)
    assert UnchangedSources({}, records).holds(packed, str(tmp_path / "there/one.py"))
    (tmp_path / "there/one.py").unlink()
    assert not UnchangedSources({}, records).holds(packed, str(tmp_path / "there/one.py"))


def test_rows_differ_by_sources_and_libraries_alone() -> None:
    record = b'one.py,sha256=a,1\n"o,ne/x.py",sha256=b,2\nlib.so.1,sha256=c,3\n'
    other = b"one-1.0.dist-info/INSTALLER,sha256=x,4\n" + b"".join(reversed(record.splitlines(keepends=True)))
    other += b"__pycache__/one.cpython-311.pyc,,\n../../../bin/one,sha256=y,9\n"
    assert rows_digest(record) == rows_digest(other) != rows_digest(record.replace(b"=c", b"=d"))
    assert sorted(files_of(other)) == ["lib.so.1", "o,ne/x.py", "one.py"]
