"""A disk that fills while a verb writes: one error, and nothing is left or lost."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Chain, tidalctl

EVENT = json.dumps({"prompt": [3, 1, 4], "max_new_tokens": 2})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a file system of some bytes."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("only root can mount a small file system")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tidalctl-test", folder], capture_output=True)
        if done.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize(("verb", "size"), [("compile", 96 * 1024), ("trace", 16 * 1024)])
def test_a_disk_that_fills_is_told_as_such_and_loses_nothing(
    decoder: Chain, small_disk: Callable[[int], Path], temporary: dict[str, str], verb: str, size: int
) -> None:
    disk = small_disk(size)
    (disk / "kept").write_text("kept")
    lines = {"compile": [decoder.trace, "-o", "app.bundle"], "trace": [decoder.project / "app.py", "--event", EVENT]}
    done = tidalctl(verb, *lines[verb], cwd=disk, env=temporary).one_error("No space left on device")
    assert (done.out, [path.name for path in disk.iterdir()]) == ("", ["kept"])
