"""`--vary` promises that init takes the same steps for any value of a field, and `--check-event` holds a bundle against more events."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Chain, tidalctl

CLIPS = """
import tidalctl
import torch


@tidalctl.init
def load(event):
    return {"weight": torch.arange(4.0) * min(event["scale"], 4.0)}


def handler(event, context):
    return load(event)["weight"].tolist() + [event.get("n", 0)]
"""
EVENTS = ({"scale": 0.5}, {"scale": 2.0})


@pytest.fixture
def clips(chain: Callable[..., Chain]) -> Chain:
    return chain(CLIPS, *EVENTS)


def compiled(made: Chain, *options: str) -> dict[str, Any]:
    done = tidalctl("compile", made.trace, "-o", made.bundle, "--force", "--json", *options, cwd=made.folder).ok()
    report: dict[str, Any] = json.loads(done.out)
    return report


def test_a_script_needs_the_promise_and_check_events_tell_where_it_does_not_hold(clips: Chain) -> None:
    fallback = clips.manifest["fallbacks"][0]
    assert clips.manifest["strategy"] != "script" and fallback["code"] == "vary-not-promised"
    assert fallback["cause"].endswith("say so with --vary scale")
    promised = compiled(clips, "--vary", "scale", "--check-event", '{"scale": 3.5}')
    assert (promised["strategy"], promised["fallbacks"], promised["events"]) == ("script", [], 3)
    assert clips.run({"scale": 1.25})["strategy"] == "script"
    script = clips.bundle / "dynamic_init.py"
    script.write_text(script.read_text().replace("    import torch\n", "    import torhc\n"))
    report = clips.run({"scale": 1.25}, "--verify", "off")
    assert (report["strategy"], report["cause"], report["output"]) == ("eager", "script-failed", clips.plain({"scale": 1.25}))
    event = {"scale": 9.0, "n": 1}
    checked = compiled(clips, "--vary", "scale", "--check-event", json.dumps(event))
    assert checked["strategy"] != "script"
    (failed, *_) = checked["fallbacks"]
    assert failed["code"] == "proof-failed" and "check event 0: " in failed["cause"]
    assert clips.run(event)["output"] == clips.plain(event)


def test_a_promise_in_the_trace_is_one_for_compile(chain: Callable[..., Chain]) -> None:
    made = chain(CLIPS, *EVENTS, options=("--vary", "scale"))
    assert made.manifest["strategy"] == "script"
    document = json.loads(tidalctl("inspect", made.trace, "--json", cwd=made.folder).ok().out)
    assert document["vary"] == ["scale"]


def test_a_snapshot_is_held_against_check_events_too(decoder: Chain, tmp_path: Path) -> None:
    words = (
        "compile",
        decoder.trace,
        "-o",
        tmp_path / "checked.bundle",
        "--check-event",
        '{"prompt": [2, 7], "max_new_tokens": 2}',
    )
    done = tidalctl(*words, cwd=decoder.folder).ok()
    assert "2 events (1 of them not traced) answered by a fresh process exactly as by the plain function" in done.err


def test_a_check_event_that_the_function_does_not_answer_is_named(decoder: Chain, tmp_path: Path) -> None:
    words = ("compile", decoder.trace, "-o", tmp_path / "checked.bundle", "--check-event", '{"nothing": 1}')
    done = tidalctl(*words, cwd=decoder.folder)
    assert done.code == 1 and '--check-event {"nothing": 1}' in done.err and not (tmp_path / "checked.bundle").exists()


@pytest.mark.parametrize("verb", ["trace", "compile"])
def test_a_field_that_no_traced_event_has_is_a_usage_error(decoder: Chain, tmp_path: Path, verb: str) -> None:
    words = (
        ("trace", "project/app.py", "--event", json.dumps(decoder.events[0])) if verb == "trace" else ("compile", decoder.trace)
    )
    done = tidalctl(*words, "-o", tmp_path / "out", "--vary", "promt", cwd=decoder.folder)
    assert done.code == 2 and "--vary promt: no traced event has this field" in done.err
    assert "the traced events have: max_new_tokens, prompt" in done.err and not (tmp_path / "out").exists()
