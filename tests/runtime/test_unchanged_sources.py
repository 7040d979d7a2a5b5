"""Another environment with the same packages serves the code pack: times differ, what was installed does not."""

import os
from pathlib import Path

import pytest
from conftest import distribution, write_project

from tidalctl.artifacts.bundle.import_cache import read_contents
from tidalctl.artifacts.distributions import Distribution, files_of, rows_digest, source_digest
from tidalctl.runtime.imports.unchanged_sources import UnchangedSources

SOURCE = "NAME = 'one'\n"
NOW, LATER = 2_000_000_000, 2_000_000_100


Known = tuple[str, int, str, Distribution]


def installed(site: Path, source: str = SOURCE, written: int = NOW) -> Path:
    """Install a module and its distribution, whose RECORD is written at NOW."""
    write_project(site, {"one.py": source})
    record = distribution(site, "one", ["one.py", "one/native.so"]) / "RECORD"
    os.utime(site / "one.py", (written, written))
    os.utime(record, (NOW, NOW))
    return record


@pytest.fixture
def known(tmp_path: Path) -> Known:
    record = installed(tmp_path / "home").read_bytes()
    return "one.py", len(SOURCE), source_digest(SOURCE.encode()), ("one-1.0.dist-info", rows_digest(record))


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
    known: Known, tmp_path: Path, source: str, written: int, same: bool
) -> None:
    installed(tmp_path / "there", source, written)
    assert UnchangedSources({"one.py": 5}, {}).holds(str(tmp_path / "there/one.py"), *known) is same


def test_the_time_at_home_tells_without_reading_anything(known: Known, tmp_path: Path) -> None:
    place = tmp_path / "there/one.py"
    installed(tmp_path / "there", SOURCE.replace("one", "two"))
    assert UnchangedSources({"one.py": NOW}, {}).holds(str(place), *known)


def test_a_record_of_other_files_vouches_for_nothing_and_content_tells(known: Known, tmp_path: Path) -> None:
    record = installed(tmp_path / "there", SOURCE.replace("one", "two"))
    record.write_text(record.read_text() + "more.py,sha256=x,1\n")
    os.utime(record, (LATER, LATER))
    assert not UnchangedSources({}, {}).holds(str(tmp_path / "there/one.py"), *known)
    (tmp_path / "there/one.py").write_text(SOURCE)
    assert UnchangedSources({}, {}).holds(str(tmp_path / "there/one.py"), *known)
    (tmp_path / "there/one.py").unlink()
    assert not UnchangedSources({}, {}).holds(str(tmp_path / "there/one.py"), *known)


def test_rows_differ_by_sources_and_libraries_alone() -> None:
    record = b'one.py,sha256=a,1\n"o,ne/x.py",sha256=b,2\nlib.so.1,sha256=c,3\n'
    other = b"one-1.0.dist-info/INSTALLER,sha256=x,4\n" + b"".join(reversed(record.splitlines(keepends=True)))
    other += b"__pycache__/one.cpython-311.pyc,,\n../../../bin/one,sha256=y,9\n"
    assert rows_digest(record) == rows_digest(other) != rows_digest(record.replace(b"=c", b"=d"))
    assert sorted(files_of(other)) == ["lib.so.1", "o,ne/x.py", "one.py"]


def test_a_folder_counts_by_the_sources_and_folders_in_it(tmp_path: Path) -> None:
    """At home times tell; elsewhere names and sources do, and bytecode or other files count nowhere."""
    folder = write_project(tmp_path / "models", {"a.py": "a", "one/b.py": "b", "one/note.txt": "text"})
    content = read_contents(str(folder))
    times = {f"models/{name}": int((folder / name).stat().st_mtime) for name in content if name.endswith(".py")}
    home = {f"models/{name}".rstrip("/"): (folder / name.lstrip("/")).stat().st_mtime_ns for name in content if name[-1] == "/"}

    def held() -> set[bool]:
        both = UnchangedSources(times, home), UnchangedSources({}, {})
        return {sources.holds_folder(f"{tmp_path}/", "models", {None: content}) for sources in both}

    assert held() == {True}
    (folder / "one/note.txt").write_text("another text")
    write_project(folder, {"one/new.txt": "text", "__pycache__/a.pyc": "c"})
    assert held() == {True}
    (folder / "one/c.py").write_text("c")
    assert held() == {False}
    (folder / "one/c.py").unlink()
    assert held() == {True}
    (folder / "one/b.py").write_text("c")
    os.utime(folder / "one/b.py", (LATER, LATER))
    assert held() == {False}
    (folder / "a.py").unlink()
    write_project(folder / "a.py", {"b.txt": "a folder of a source's name"})
    assert held() == {False}
    assert not UnchangedSources(times, home).holds_folder(f"{tmp_path}/", "elsewhere", {None: content})
