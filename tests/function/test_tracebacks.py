"""What a user sees of a function that raises: its own frames, wherever the bundle stands between them."""

import json
from pathlib import Path

import pytest
from conftest import Chain, python, tidalctl, write_project

from tidalctl.artifacts.bundle.directory import open_bundle
from tidalctl.artifacts.errors import TidalError
from tidalctl.function.tracebacks import show_traceback

DIVIDES = """
import os
import tidalctl
import torch


@tidalctl.init
def load(event):
    weight = torch.ones(2)
    if os.environ.get("FAILS"):
        raise RuntimeError("not again")
    try:
        return {"weight": weight / event["by"]}
    except TypeError:
        raise ValueError("no number") from None


def handler(event, context):
    return load(event)["weight"].sum().item()
"""


@pytest.fixture(scope="module")
def divides(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    made = Chain(tmp_path_factory.mktemp("divides"), [{"by": 2.0}, {"by": 4.0}])
    write_project(made.project, DIVIDES)
    events = [word for event in made.events for word in ("--event", json.dumps(event))]
    made.traced = tidalctl("trace", "project/app.py", *events, "--vary", "by", cwd=made.folder).ok()
    made.compiled = tidalctl("compile", "app.trace", "--explain", "--json", cwd=made.folder).ok()
    return made


def test_an_init_that_raises_behind_the_bundle_shows_no_frames_between_the_users_and_leaves_a_timeline(divides: Chain) -> None:
    assert divides.manifest["strategy"] == "script"
    options = ("--event", '{"by": "x"}', "--timeline", "times.json", "--report", "start.html")
    done = tidalctl("run", divides.bundle, *options, cwd=divides.folder).one_error("ValueError: no number", code=1)
    frames = [line.rpartition(" in ")[2] for line in done.err.splitlines() if line.startswith('  File "')]
    assert frames == ["handler", "load"], done.err
    assert json.loads((divides.folder / "times.json").read_text())["traceEvents"]
    assert "no page was written" in done.err and not (divides.folder / "start.html").exists()


def test_a_function_that_fails_in_compile_shows_its_own_frames(divides: Chain, tmp_path: Path) -> None:
    """Its sources are as they were traced, or compile would refuse them."""
    fails = {"FAILS": "yes"}
    done = tidalctl("compile", divides.trace, "-o", tmp_path / "new.bundle", cwd=divides.folder, env=fails)
    done.one_error("failed", code=1)
    frames = [line.rpartition(" in ")[2] for line in done.err.splitlines() if line.startswith('  File "')]
    assert frames == ["handler", "load"] and "RuntimeError: not again" in done.err, done.err


def test_frames_of_ours_are_shown_where_it_is_ours_that_raised(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TidalError) as caught:
        open_bundle(Path("nowhere"))
    show_traceback(caught.value)
    assert "in open_bundle" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["script", "snapshot"])
def test_a_script_that_is_not_given_an_event_says_what_it_wants(divides: Chain, decoder: Chain, kind: str) -> None:
    made = divides if kind == "script" else decoder
    assert made.manifest["strategy"] == kind
    code = "import runpy, sys; sys.argv[1:] = ['{']; runpy.run_path('dynamic_init.py', run_name='__main__')"
    done = python(code, cwd=made.bundle)
    assert done.code == 2 and "not JSON" in done.err and "Traceback" not in done.err


def test_weights_that_each_of_two_events_makes_are_counted_once(divides: Chain) -> None:
    assert divides.traced is not None
    assert ", 1 weight, " in divides.traced.err


def test_what_a_script_makes_is_not_said_to_be_folded(divides: Chain) -> None:
    done = divides.compiled
    assert done is not None
    assert json.loads(done.out)["dynamic"] == ["weight"], "stdout is the JSON alone"
    assert "1 weight: script" in done.err
    folded = done.err.partition("folded, so that it need not run again:")[2].partition("fell back")[0]
    assert "aten.div" not in folded


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "def handler(event, context)\n    return 1\n",
            ["failed", "in import: File", "def handler(event, context)", "SyntaxError: expected ':'"],
        ),
        (
            "import tidalctl\n@tidalctl.init\ndef load():\n    1 / 0\ndef handler(event, context):\n    load()\n",
            ["in init: Zero"],
        ),
    ],
    ids=["syntax", "init"],
)
def test_an_incomplete_trace_says_in_what_the_function_failed(tmp_path: Path, text: str, told: list[str]) -> None:
    write_project(tmp_path, text)
    tidalctl("trace", "app.py", "--event", "{}", cwd=tmp_path).one_error(code=1)
    shown = tidalctl("inspect", "app.trace.partial", cwd=tmp_path).ok().out
    assert [part for part in told if part not in shown or "\\n" in shown] == [], shown
