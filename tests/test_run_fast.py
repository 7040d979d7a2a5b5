"""The short parser of `run` and the command-line framework's understand the same options in the same way."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import Chain, tidalctl
from typer.testing import CliRunner

from tidalctl.cli import _app
from tidalctl.commands import run, run_fast
from tidalctl.runtime.launch import RunOptions
from tidalctl.runtime.load import load_bundle
from tidalctl.runtime.stream.weights import IO, VERIFY

LINES = [
    ["a.bundle", "--event", "{}"],
    ["a.bundle", "-e", "{}", "--json"],
    ["--event={}", "a.bundle", "--verify", "off"],
    ["a.bundle", "--verify=full", "--event", "{}", "--report", "r.html"],
    ["a.bundle", "--event", "{}", "--readahead", "1.5GiB"],
    ["--eager", "a.bundle", "--event", "-", "--timeline", "t.json"],
    ["a.bundle", "--timeline=t.json", "--event", "e.json", "--", "--flag", "x"],
]


def framework(line: list[str], monkeypatch: pytest.MonkeyPatch) -> RunOptions:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(run, "start", lambda fields: seen.append(fields) or 0)
    assert CliRunner().invoke(_app(), ["run", *line]).exit_code == 0
    return RunOptions(**seen[0])


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_both_parsers_give_the_same_options(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fields = run_fast.parse(line)
    assert fields is not None
    assert RunOptions(**fields) == framework(line, monkeypatch)  # type: ignore[arg-type]


def test_load_bundle_takes_no_option_that_run_does_not_take(tmp_path: Path) -> None:
    for options in ({"verify": "ful"}, {"io": "pipe"}):
        with pytest.raises(ValueError, match="is not one of"):
            load_bundle(tmp_path, **options)
    assert (run_fast.VERIFY, run_fast.IO) == (VERIFY, IO)


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["a.bundle"],
        ["--event", "{}"],
        ["a", "b", "--event", "{}"],
        ["a", "--event"],
        ["a", "--help"],
        ["a", "--event", "{}", "--typo"],
        ["a", "--event", "{}", "--verify", "perhaps"],
    ],
    ids=" ".join,
)
def test_whatever_else_is_left_to_the_framework(line: list[str]) -> None:
    assert run_fast.parse(line) is None


def test_every_option_of_run_has_its_short_form() -> None:
    command = typer.main.get_command(_app()).commands["run"]  # type: ignore[attr-defined]
    declared = {name for option in command.params for name in (*option.opts, *option.secondary_opts) if name.startswith("-")}
    assert declared - {"--help"} == {*run_fast.FLAGS, *run_fast.VALUES}


def test_all_verbs_show_their_event_and_what_they_work_on_alike() -> None:
    commands = typer.main.get_command(_app()).commands  # type: ignore[attr-defined]
    events = {option.metavar for command in commands.values() for option in command.params if "--event" in option.opts}
    shown = {option.metavar for command in commands.values() for option in command.params if option.opts[0].isidentifier()}
    assert (events, shown) == ({"JSON|FILE|-"}, {"TARGET", "TRACE", "BUNDLE", "PATH"})


def test_small_weights_have_a_size(decoder: Chain) -> None:
    assert decoder.traced is not None and ", 185 kB, " in decoder.traced.err
    assert re.search(r"weights, 185 kB in access order \(36\.9 kB never used, last\)", decoder.said())


def test_a_way_of_reading_for_gpus_is_said_to_be_none_for_mapped_weights(decoder: Chain) -> None:
    event = json.dumps(decoder.events[0])
    said = tidalctl("run", decoder.bundle, "--event", event, "--io", "direct", cwd=decoder.folder).ok()
    assert "note: --io is for weights that go to a GPU" in said.err
    assert re.search(r"weights 18\d kB \(checked\), \d+(\.\d+)? k?B of it read", said.err)
    assert "note:" not in tidalctl("run", decoder.bundle, "--event", event, cwd=decoder.folder).ok().err
