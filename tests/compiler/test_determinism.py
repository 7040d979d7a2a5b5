"""The same trace and the same inputs give the same digest, whoever compiles, wherever."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import TIMEOUT_S, Chain, tidalctl

SETS = """
import torch
import tidalctl


@tidalctl.init(static=True)
def load(event):
    words = {"one", "two", "three", "four", "five", "six"}
    return {"words": words, "frozen": frozenset(words), "index": {word: len(word) for word in words}, "weight": torch.ones(3)}


def handler(event, context):
    state = load(event)
    return sorted(state["words"])
"""


def compile_under(trace: Path, output: Path, cwd: Path, umask: int, **env: str) -> str:
    """Compile with another working directory, umask and environment; the manifest of what comes out."""
    subprocess.run(
        [sys.executable, "-P", "-m", "tidalctl", "compile", str(trace), "-o", str(output)],
        cwd=cwd,
        env={**os.environ, **env},
        preexec_fn=lambda: os.umask(umask) and None,
        timeout=TIMEOUT_S,
        capture_output=True,
        check=True,
    )
    return (output / "manifest.json").read_text(encoding="utf-8")


def test_the_digest_depends_on_nothing_but_the_trace_and_its_inputs(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "app.py").write_text(SETS)
    trace = tmp_path / "app.trace"
    tidalctl("trace", project / "app.py", "--event", "{}", "-o", trace, cwd=tmp_path, env={"PYTHONHASHSEED": "7"}).ok()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    one = compile_under(trace, tmp_path / "one.bundle", tmp_path, 0o022, PYTHONHASHSEED="1", LC_ALL="C", HOME=str(tmp_path))
    other = compile_under(
        trace,
        elsewhere / "other.bundle",
        elsewhere,
        0o077,
        PYTHONHASHSEED="2",
        LC_ALL="C.UTF-8",
        HOME=str(elsewhere),
        TZ="Asia/Tokyo",
    )
    assert one == other


def test_a_manifest_holds_no_path_of_the_machine(decoder: Chain) -> None:
    text = (decoder.bundle / "manifest.json").read_text(encoding="utf-8")
    assert str(decoder.folder) not in text
    assert sys.prefix not in text
