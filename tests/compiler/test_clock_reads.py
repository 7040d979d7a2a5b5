"""What an init makes of the clock is frozen in a bundle, which compile can only say."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Chain

from tidalctl.compiler.snapshot.clock_reads import clock_reads

PROMPTS = """
import datetime
import time
import tidalctl
import torch


def prompt():
    return f"Today is {datetime.date.today()}."


@tidalctl.init(static=True)
def load(event):
    return {"weight": torch.ones(1), "prompt": prompt()}


def handler(event, context):
    began = time.time()
    return [load(event)["prompt"], time.time() < began]
"""


def test_compile_says_where_init_looks_at_the_clock_and_not_where_the_handler_does(chain: Callable[..., Chain]) -> None:
    made = chain(PROMPTS, {})
    assert made.manifest["strategy"] == "snapshot"
    (note,) = [line for line in made.said().splitlines() if "clock" in line]
    assert "app.py, line 9: app:load looks at the clock (datetime.date.today)" in note


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("time.sleep(1)", []),
        ("x.datetime.now()", [(2, "x.datetime.now")]),
        ("other()", [(4, "time.time_ns")]),
        ("load()", []),
    ],
)
def test_calls_are_followed_within_the_module(tmp_path: Path, body: str, found: list[tuple[int, str]]) -> None:
    (tmp_path / "app.py").write_text(f"def load():\n    {body}\ndef other():\n    time.time_ns()\n    load()\n")
    assert clock_reads(tmp_path / "app.py", "load") == found


@pytest.mark.parametrize("content", [b"def load(:", b"\x00", b"\xff\xfe"])
def test_a_source_that_is_none_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "app.py").write_bytes(content)
    assert clock_reads(tmp_path / "app.py", "load") == [] == clock_reads(tmp_path / "gone.py", "load")
