"""Code is read ahead, and of a library what a start touches."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from conftest import Chain

from tidalctl.artifacts.bundle.code_pack import PackFile
from tidalctl.artifacts.bundle.directory import open_bundle
from tidalctl.artifacts.bundle.manifest import PACK
from tidalctl.artifacts.bundle.provenance import read_provenance
from tidalctl.artifacts.page_cache import ask_for
from tidalctl.bench import page_cache
from tidalctl.runtime.imports import read_ahead as reader
from tidalctl.runtime.imports.read_ahead import CodeReadAhead
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.weights.file_mapping import PrivateMapping, WeightsFile
from tidalctl.tracer.process.touched_pages import PAGE, touched_parts


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A file of 48 MiB, none of it in memory."""
    path = tmp_path / "library.so"
    path.write_bytes(os.urandom(48 * 2**20))
    if not page_cache.evict([path]).cold:
        pytest.skip("this file system keeps its pages")
    return path


def brought(path: Path, begin: int, end: int) -> bool:
    file, until = WeightsFile(path), time.monotonic() + 20
    while not file.holds(begin, end) and time.monotonic() < until:
        time.sleep(0.01)
    return file.holds(begin, end)


def test_all_of_a_large_file_is_asked_for_though_the_kernel_cuts_each_piece_of_advice(library: Path) -> None:
    with open(library, "rb") as file:
        ask_for(file.fileno())
        assert brought(library, 0, 48 * 2**20)


def test_parts_are_asked_for_and_the_rest_is_not(library: Path) -> None:
    with open(library, "rb") as file:
        ask_for(file.fileno(), [(5, -3), (2**70, 5), (-5, 2)])  # which it does not have
        ask_for(file.fileno(), [(2**20, 2**20), (40 * 2**20, 2**30)])
        assert brought(library, 2**20, 2**21) and brought(library, 40 * 2**20, 48 * 2**20)
    assert not WeightsFile(library).holds(8 * 2**20, 32 * 2**20)


def test_the_pages_that_a_process_touches_are_told_and_those_far_from_them_are_not(tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(bytes(32 * 2**20))
    mapping = PrivateMapping(path)
    assert mapping.memory[3 * PAGE] == mapping.memory[20 * 2**20] == 0
    parts = touched_parts([str(path), "/nowhere"])[str(path)]
    covered = [any(begin <= at < begin + length for begin, length in parts) for at in (3 * PAGE, 20 * 2**20, 10 * 2**20)]
    assert covered == [True, True, False]
    assert list(parts) == sorted(parts) and all(begin % PAGE == 0 == length % PAGE for begin, length in parts)


def test_a_bundle_knows_what_of_torch_a_start_touches_and_what_imports_look_through(decoder: Chain) -> None:
    manifest = decoder.manifest
    library = "torch/lib/libtorch_cpu.so"
    libraries = [name for name in manifest["readahead"] if ".so" in name]
    assert {library, "torch/lib/libtorch_python.so"} < set(libraries)
    assert any("/" not in name for name in libraries), "of the standard library's, by their names on sys.path"
    assert "lib-dynload" not in "".join(libraries)
    provenance = read_provenance(decoder.bundle)
    size = next(Path(file).stat().st_size for file in provenance["code_files"] if file.endswith(library))
    touched = sum(length for _, length in provenance["touched"][library])
    assert 0 < touched < size / 2
    assert set(provenance["touched"]) <= set(manifest["readahead"])
    packed = {module.file.rpartition("/")[0] for module in PackFile(decoder.bundle / PACK, manifest["pack"]).index.modules}
    bytecode = [name for name in manifest["readahead"] if name.endswith(".pyc")]
    assert len(bytecode) < 20 < len(packed), "the code pack holds them, but for a few"
    assert "_VF" in {Path(name).name.partition(".")[0] for name in bytecode}, "it replaced itself"


def test_nobody_waits_for_little_behind_much(decoder: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, int]] = []

    def note(path: Path, parts: Iterable[tuple[int, int]] | None = None) -> None:
        asked.append((path, sum(n for _, n in parts) if parts is not None else path.stat().st_size))

    monkeypatch.setattr(reader, "read_ahead", note)
    monkeypatch.setattr(reader, "in_memory", lambda path: False)
    manifest = open_bundle(decoder.bundle)
    CodeReadAhead(decoder.bundle, manifest, Timeline(0, 0)).wait()
    checked = [path for path, _ in asked if path.is_relative_to(decoder.bundle) and path.name != PACK]
    assert [path for path, _ in asked[: len(checked)]] == checked, "what the start checks before anything else comes first"
    assert not {path.name for path in checked} & {weight.file for weight in manifest.weights}
    rest = asked[len(checked) :]
    sources = [path for path, _ in rest if path.suffix == ".py"]
    assert sources and [path for path, _ in rest[-len(sources) :]] == sources, "what imports look through comes last"
    lengths = [nbytes for _, nbytes in rest[: -len(sources)]]
    assert len(lengths) > 50 and lengths == sorted(lengths)
