"""What init read besides its arguments, and what it left besides its result, is part of the snapshot or speaks against using it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Chain
from sample_artifacts import write_bundle

from tidalctl.artifacts.bundle.manifest import Guard
from tidalctl.artifacts.cause import Cause
from tidalctl.runtime.conditions import CallConditions

APP = """
import os
import sys

import torch
import tidalctl

ABSENT = object()
CACHE = {}
LATEST = None
SCALE = float(os.environ.get("APP_SCALE", "1"))


@tidalctl.init(static=True)
def load(event):
    global LATEST
    LATEST = "set by init"
    CACHE["word"] = "kept by init"
    return {"weight": torch.full((2,), SCALE), "missing": ABSENT, "arguments": sys.argv[1:]}


def handler(event, context):
    state = load(event)
    return [state["weight"].tolist(), state["missing"] is ABSENT, CACHE, LATEST, state["arguments"]]
"""
EXPECTED = [[1.0, 1.0], True, {"word": "kept by init"}, "set by init", []]


def test_globals_that_init_sets_or_fills_and_sentinels_come_back(chain: Callable[..., Chain]) -> None:
    made = chain(APP)
    report = made.run({})
    assert (report["output"], report["strategy"]) == (EXPECTED, "snapshot")
    assert "app.CACHE" in made.said()
    assert "app.LATEST" in made.said()

    # another value of a variable that the project reads: right, slower, and it says which
    other = made.start({}, "--json", APP_SCALE="3").report
    assert other["output"] == [[3.0, 3.0], *EXPECTED[1:]]
    assert other["strategy"] == "eager"
    assert "APP_SCALE" in other["fallback"] and other["cause"] == "environment-differs"

    # other arguments for the function
    other = made.run({}, "--", "--mode", "x")
    assert other["output"] == [*EXPECTED[:4], ["--mode", "x"]]
    assert "arguments" in other["fallback"] and other["cause"] == "arguments-differ"


def test_a_directory_or_a_variable_that_the_function_changes_before_init_is_as_in_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_bundle(tmp_path / "app.bundle", guard=Guard(static=True))
    conditions = CallConditions(lambda: [str(tmp_path)])
    monkeypatch.setenv("APP_MODE", "fast")
    assert conditions.mismatch(manifest.held[0]) == Cause.VARIABLE_SET_BEFORE_INIT.of(name="APP_MODE", init="app:load")
    conditions.restart()
    assert conditions.mismatch(manifest.held[0]) is None
    monkeypatch.chdir(tmp_path)
    assert conditions.mismatch(manifest.held[0]) == Cause.DIRECTORY_DIFFERS.of(init="app:load")
