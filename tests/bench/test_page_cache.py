"""A benchmark row says whether the page cache was cold or warm, and how that was checked."""

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

from tidalctl.bench import page_cache


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(8 * 2**20))  # dirty pages: eviction has to write them out first
    return path


def test_eviction_is_proved_on_a_real_file(written: Path) -> None:
    before = page_cache.residency([written])
    assert before.share == 1.0 and before.warm and not before.cold
    left = page_cache.evict([written])
    if (
        not left.cold
        and subprocess.run(["stat", "-f", "-c%T", written], capture_output=True, text=True).stdout.strip() == "tmpfs"
    ):
        pytest.skip("tmpfs keeps its pages")
    assert left.cold and not left.warm and left.resident == 0 and left.size == 8 * 2**20
    assert page_cache.fill([written]).warm


def test_an_eviction_that_failed_is_not_called_cold(written: Path) -> None:
    import mmap

    with open(written, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) >= 0  # as another process would hold it
        left = page_cache.evict([written])
    assert not left.cold and left.largest == str(written)


def test_a_count_that_the_kernel_would_not_give_proves_nothing() -> None:
    unknown = page_cache.Residency(100, 0, unknown=100)
    assert not unknown.cold and not unknown.warm
    assert not page_cache.Residency(0, 0).cold and not page_cache.Residency(0, 0).warm


def test_files_without_pages_are_left_out(tmp_path: Path, written: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to(written)
    listed = [tmp_path, *(tmp_path / name for name in ("link", "empty", "gone")), Path("/dev/null"), Path("/proc/meminfo")]
    assert page_cache.cached_files([written, *listed]) == [written]


def test_bytecode_goes_with_its_source(tmp_path: Path) -> None:
    source, library = tmp_path / "m.py", tmp_path / "m.so"
    cached = Path(importlib.util.cache_from_source(str(source)))
    assert page_cache.with_bytecode([source, library]) == [source, cached, library]
