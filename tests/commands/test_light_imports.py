"""Help, inspect, completion and the mark of an init bring no torch: what shows something answers at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TIDALCTL, Chain, python

LOOKS = {
    "nothing": [],
    "help": ["--help"],
    "help of trace": ["trace", "--help"],
    "help of run": ["run", "--help"],
    "help of bench": ["bench", "--help"],
    "version": ["--version"],
    "completion": ["--show-completion", "bash"],
}


@pytest.mark.parametrize("case", LOOKS)
def test_help_does_not_import_torch(tmp_path: Path, case: str) -> None:
    environment = {"SHELL": "/bin/bash", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "COLUMNS": "80"}
    shown = assert_no_torch(LOOKS[case], tmp_path, environment)
    assert "..." not in shown.partition("Commands:")[2], "a verb's text is cut"
    assert not [line for line in shown.splitlines() if line.startswith("Usage:") and "{" in line]


def test_inspect_of_a_trace_and_of_a_bundle_does_not_import_torch(decoder: Chain) -> None:
    for path in (decoder.trace, decoder.bundle):
        assert_no_torch(["inspect", str(path)], decoder.folder, {})
        assert_no_torch(["inspect", str(path), "--json"], decoder.folder, {})
    assert_no_torch(["verify", str(decoder.bundle)], decoder.folder, {})


def test_completion_of_a_verb_does_not_import_torch(tmp_path: Path) -> None:
    environment = {"_TIDALCTL_COMPLETE": "complete_bash", "COMP_WORDS": "tidalctl tr", "COMP_CWORD": "1"}
    done = assert_no_torch([], tmp_path, environment)
    assert "trace" in done


def test_import_tidalctl_costs_nothing(tmp_path: Path) -> None:
    script = "import sys; before = set(sys.modules); import tidalctl; print(*sorted(set(sys.modules) - before))"
    assert python(script, cwd=tmp_path).ok().out.split() == ["tidalctl", "tidalctl.function", "tidalctl.function.init_mark"]


def assert_no_torch(arguments: list[str], cwd: Path, environment: dict[str, str]) -> str:
    command = [sys.executable, "-P", "-X", "importtime", *TIDALCTL[2:], *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "tidalctl.cli" in imported
    assert not [name for name in imported if name.partition(".")[0] in ("torch", "numpy", "transformers", "safetensors")]
    return done.stdout
