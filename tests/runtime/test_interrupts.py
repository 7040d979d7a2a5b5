"""Ctrl-C ends what it is meant for, at once and cleanly."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Chain, write_project

EVENT = json.dumps({"prompt": [3, 1, 4], "max_new_tokens": 2})
WAIT_S = 60


def wait_for(marker: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + WAIT_S
    while not marker.exists():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("verb", ["trace", "compile", "run"])
def test_an_interrupt_ends_it_with_130_and_leaves_nothing(
    decoder: Chain, tmp_path: Path, temporary: dict[str, str], group: Callable[..., "subprocess.Popen[str]"], verb: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    arguments = {
        "trace": ["trace", decoder.project / "app.py", "--event", EVENT],
        "compile": ["compile", decoder.trace, "-o", "new.bundle"],
        "run": ["run", decoder.bundle, "--event", EVENT, "--eager"],
    }[verb]
    process = group(*arguments, cwd=folder, env={**temporary, "DECODER_WAIT": str(tmp_path / "marker")})
    wait_for(tmp_path / "marker", process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, err
    assert [line for line in err.splitlines() if line.startswith("error:")] == ["error: interrupted"]
    assert "Traceback" not in err
    assert out == ""
    assert list(folder.iterdir()) == []


DEAF = """
import pathlib, time
import tidalctl

@tidalctl.init
def load():
    while True:
        try:
            pathlib.Path("marker").touch()
            while True:
                time.sleep(0.01)  # one long sleep would be slept through where the interrupt comes just before it
        except KeyboardInterrupt:
            pass

def handler(event, context):
    return load()
"""


@pytest.mark.parametrize("times", [1, 2])
def test_a_function_that_does_not_heed_an_interrupt_is_ended_by_it(
    tmp_path: Path, group: Callable[..., "subprocess.Popen[str]"], times: int
) -> None:
    write_project(tmp_path / "deaf", DEAF)
    folder = tmp_path / "out"
    folder.mkdir()
    process = group("trace", "../deaf/app.py", "--event", "{}", cwd=folder)
    wait_for(folder / "marker", process)
    (folder / "marker").unlink()
    os.killpg(process.pid, signal.SIGINT)
    if times == 2:  # who waits no longer
        wait_for(folder / "marker", process)
        os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err.strip().splitlines()[-1]) == (130, "error: interrupted")
    assert [path.name for path in folder.iterdir()] == ["marker"]  # once more, and no trace
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left
