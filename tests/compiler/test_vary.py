"""`--vary` promises that init takes the same steps for any value of a field, and `--check-event` holds a bundle against more events."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PLAIN, Chain, forked, python, tidalctl, write_project
from safetensors.torch import save_file

CLIPS = """
import tidalctl
from safetensors.torch import load_file


@tidalctl.init
def load(event):
    base = load_file("base.safetensors")["weight"]
    return {"weight": base * min(event["scale"], 4.0) + event["shift"]}


def handler(event, context):
    return load(event)["weight"].tolist() + [event.get("n", 0)]
"""
EVENTS = ({"scale": 0.5, "shift": 1.0}, {"scale": 2.0, "shift": 0.25})


def compiled(made: Chain, *options: str) -> dict[str, Any]:
    done = tidalctl("compile", made.trace, "-o", made.bundle, "--force", "--json", *options, cwd=made.folder).ok()
    report: dict[str, Any] = json.loads(done.out)
    return report


@pytest.mark.slow
def test_a_script_takes_promises_to_trace_and_to_compile_and_check_events_tell_where_one_does_not_hold(tmp_path: Path) -> None:
    """Without a promise see test_causes_of_traces."""
    made = Chain(tmp_path, [])
    write_project(made.project, CLIPS)
    base = tmp_path / "base.safetensors"
    save_file({"weight": torch.arange(4.0)}, base)
    events = [word for event in EVENTS for word in ("--event", json.dumps(event))]
    tidalctl("trace", "project/app.py", *events, "--vary", "scale", cwd=tmp_path).ok()
    assert json.loads(forked("inspect", made.trace, "--json", cwd=tmp_path).ok().out)["vary"] == ["scale"]
    promised = compiled(made, "--vary", "shift")
    assert (promised["strategy"], promised["fallbacks"], promised["events"]) == ("script", [], 2)
    unseen = {"scale": 1.25, "shift": 3.0}
    expected = python(PLAIN, made.project, json.dumps(unseen), cwd=tmp_path).report
    gone = base.rename(tmp_path / "gone")
    report = made.run(unseen)
    gone.rename(base)
    assert (report["strategy"], report["output"]) == ("script", expected), "a script has no need of the base"
    script = made.bundle / "dynamic_init.py"
    script.write_text(script.read_text().replace("    import torch\n", "    import torhc\n"))
    report = made.run(unseen, "--verify", "off")
    assert (report["strategy"], report["cause"], report["output"]) == ("eager", "script-failed", expected)
    event = {"scale": 9.0, "shift": 0.0, "n": 1}
    checked = compiled(made, "--vary", "shift", "--check-event", json.dumps(event))
    assert checked["strategy"] != "script"
    (failed, *_) = checked["fallbacks"]
    assert failed["code"] == "proof-failed" and "check event 0: " in failed["cause"]


def test_a_snapshot_is_held_against_check_events_too(decoder: Chain, tmp_path: Path) -> None:
    words = ("compile", decoder.trace, "-o", tmp_path / "checked.bundle", "--check-event")
    done = tidalctl(*words, '{"prompt": [2, 7], "max_new_tokens": 2}', cwd=decoder.folder).ok()
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
