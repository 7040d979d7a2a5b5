"""What init read besides its arguments, and what it left besides its result, is part of the snapshot or speaks against using it."""

from collections.abc import Callable

from conftest import Chain, tidalctl

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
    assert made.plain({})[:4] == EXPECTED[:4]
    report = made.run({})
    assert (report["output"], report["strategy"]) == (EXPECTED, "snapshot")
    assert "app.CACHE" in made.said()
    assert "app.LATEST" in made.said()

    # another value of a variable that the project reads: right, slower, and it says which
    other = tidalctl("run", made.bundle, "--event", "{}", "--json", cwd=made.folder, env={"APP_SCALE": "3"}).report
    assert other["output"] == [[3.0, 3.0], *EXPECTED[1:]]
    assert other["strategy"] == "eager"
    assert "APP_SCALE" in other["fallback"] and other["cause"] == "environment-differs"

    # other arguments for the function
    other = tidalctl("run", made.bundle, "--event", "{}", "--json", "--", "--mode", "x", cwd=made.folder).report
    assert other["output"] == [*EXPECTED[:4], ["--mode", "x"]]
    assert "arguments" in other["fallback"] and other["cause"] == "arguments-differ"
