"""The short parser of `run` and the command-line framework's understand the same options in the same way."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import Chain, chained, tidalctl
from typer.testing import CliRunner

from tidalctl.cli import _app
from tidalctl.commands import run, run_fast
from tidalctl.runtime.launch import RunOptions
from tidalctl.runtime.load_bundle import load_bundle

LINES = [
    ["a.bundle", "--event", "{}"],
    ["a.bundle", "-e", "{}", "--json"],
    ["--event={}", "a.bundle", "--verify", "off"],
    ["a.bundle", "--verify=full", "--event", "{}", "--report", "r.html"],
    ["a.bundle", "--event", "{}", "--readahead", "1.5GiB"],
    ["a.bundle", "--event", "{}", "--require", "snapshot"],
    ["a.bundle", "--event", "{}", "--image=off"],
    ["--eager", "a.bundle", "--event", "-", "--timeline", "t.json"],
    ["a.bundle", "--timeline=t.json", "--event", "e.json", "--", "--flag", "x"],
]


def options(fields: dict[str, Any]) -> tuple[RunOptions, Any]:
    """What a start is given, and whether it is to be from the image."""
    rest = dict(fields)
    image = rest.pop("image", "auto")
    return RunOptions(**rest), image


def framework(line: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[RunOptions, Any]:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(run, "best_start", lambda fields: seen.append(fields) or 0)
    assert CliRunner().invoke(_app(), ["run", *line]).exit_code == 0
    return options(seen[0])


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_both_parsers_give_the_same_options(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fields = run_fast.parse(line)
    assert fields is not None
    assert options(fields) == framework(line, monkeypatch)


def test_load_bundle_takes_no_option_that_run_does_not_take(tmp_path: Path) -> None:
    for options in ({"verify": "ful"}, {"io": "pipe"}, {"require": "eager"}):
        with pytest.raises(ValueError, match="is not one of"):
            load_bundle(tmp_path, **options)


@pytest.mark.parametrize(
    "line",
    [
        ["a.bundle"],
        ["--event", "{}"],
        ["a", "b", "--event", "{}"],
        ["a", "--event"],
        ["a", "--event", "{}", "-e", "{}"],
        ["a", "--event", "{}", "--typo"],
        ["a", "--event", "{}", "--verify", "perhaps"],
        ["a", "--event", "{}", "--require=eager"],
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
    assert (events, shown) == ({"JSON|FILE|-"}, {"TARGET", "TRACE", "BUNDLE", "PATH", "ARRIVALS", "OLD", "NEW"})


def test_small_weights_have_a_size(decoder: Chain) -> None:
    assert decoder.traced is not None and ", 185 kB, " in decoder.traced.err
    assert re.search(r"weights, 185 kB in access order \(36\.9 kB never used, last\)", decoder.said())


def test_a_way_of_reading_for_gpus_is_said_to_be_none_for_mapped_weights(decoder: Chain) -> None:
    said = decoder.start(decoder.events[0], "--io", "direct").ok()
    assert "note: --io is for weights that go to a GPU" in said.err
    assert re.search(r"weights 18\d kB \(checked\), \d+(\.\d+)? k?B of it read", said.err)
    assert "note:" not in decoder.start(decoder.events[0]).ok().err


PRINTS = """
import os, subprocess
import torch
import tidalctl

@tidalctl.init(static=True)
def load(event):
    return {"weight": torch.ones(2)}

def handler(event, context):
    print("by print")
    os.write(1, b"by a descriptor\\n")
    subprocess.run(["echo", "by a child"], check=True)
    print("without an end", end="")
    yield load(event)["weight"].sum().item()
    if "more" in event:
        yield event["more"]
    if "exit" in event:
        raise SystemExit(*event["exit"])
"""


@pytest.fixture(scope="module")
def printing(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chained(tmp_path_factory.mktemp("printing"), PRINTS)


def test_a_report_stands_alone_on_stdout_whatever_the_function_prints(printing: Chain) -> None:
    done = printing.start({}, "--json")
    assert done.report["output"] == [2.0]
    assert done.err == "by print\nby a descriptor\nby a child\nwithout an end", "and what it prints is talk, in its order"
    done = printing.start({}).ok()
    assert sorted(done.out.splitlines()) == sorted(["by print", "by a descriptor", "by a child", "without an end2.0"])


def test_characters_that_an_encoding_lacks_are_escaped_and_json_stays_json(printing: Chain) -> None:
    event, ascii_only = {"more": "é🌊"}, {"PYTHONIOENCODING": "ascii"}
    assert printing.start(event, **ascii_only).ok().out.splitlines()[-1] == "\\u00e9\\ud83c\\udf0a"
    assert printing.start(event, "--json", **ascii_only).report["output"] == [2.0, "é🌊"]
    tidalctl("inspect", printing.trace, cwd=printing.folder, env=ascii_only).ok()


@pytest.mark.parametrize(("code", "said"), [([], ""), (["no"], "'no'")], ids=str)
def test_a_function_that_exits_has_failed_and_what_it_gave_before_is_printed(
    printing: Chain, code: list[object], said: str
) -> None:
    done = printing.start({"exit": code}).one_error(f"error: the function called sys.exit({said})", code=1)
    assert done.out.splitlines()[-1] == "without an end2.0"
