"""A state comes back exactly as init left it: every tensor, every byte, everything that is shared, and what init set besides."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from conftest import Chain, files_below, tidalctl
from safetensors import safe_open
from warm import served

from tidalctl.artifacts.trace.file import read_trace
from tidalctl.artifacts.trace.records import InitCall, Weight

EVENT = {"n": 1}
OTHER = {"n": 3}
DECODE = {"prompt": [3, 1, 4], "max_new_tokens": 5}


def test_the_state_of_a_random_generator_is_called_what_it_is_and_counted_as_no_weight(states: Chain) -> None:
    names = [weight["name"] for weight in states.manifest["weights"]]
    assert ".torch.rng" in names
    assert f"snapshot: {len(names) - 1} weights, " in states.said()
    assert "besides, the state of torch's random generator" in states.said()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """As ==, but says which part differs instead of printing both."""
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def test_everything_a_program_can_notice_about_a_state_is_as_init_left_it(states: Chain) -> None:
    report = states.run(EVENT)
    assert (report["strategy"], report["fallback"]) == ("snapshot", None)
    assert_same(report["output"], states.plain(EVENT))
    assert "exactly as by the plain function" in states.said()


def test_an_event_that_was_never_traced_is_answered_as_the_plain_function_answers_it(states: Chain) -> None:
    assert_same(states.run(OTHER)["output"], states.plain(OTHER))


def test_what_a_handler_writes_to_is_its_own_copy_and_the_next_call_sees_the_original(states: Chain) -> None:
    before = {path.name: sha256(path) for path in states.bundle.glob("*.safetensors")}
    outputs, fallbacks, restored = served(states, EVENT, EVENT, OTHER)
    assert (fallbacks, restored) == ([None, None, None], 3)
    assert_same(outputs[0], outputs[1])
    plainly = states.plain(EVENT)
    assert_same(outputs[0], plainly)
    assert_same(outputs[2], states.plain(OTHER))
    assert {path.name: sha256(path) for path in states.bundle.glob("*.safetensors")} == before


def test_what_init_sets_besides_the_state_is_kept_and_compile_says_so(states: Chain) -> None:
    assert "app.MODE" in states.said()
    assert "helper.TABLE" in states.said()


def test_tied_and_viewed_tensors_are_stored_once(states: Chain) -> None:
    manifest = states.manifest
    names = [weight["name"] for weight in manifest["weights"]]
    assert len(names) == len(set(names))
    assert [name for name in names if name in ("base", "transposed", "row", "window")] == ["base"]
    tied = [name for name in names if name in ("one.first.weight", "one.second.weight", "one.third", "two.third")]
    assert tied == ["one.third", "one.first.weight"] or tied == ["one.first.weight", "one.third"]
    with safe_open(states.bundle / "weights.safetensors", framework="pt") as file:
        assert [name for name in file.offset_keys() if not name.startswith(".pad.")] == names


def test_the_bundle_answers_when_the_project_and_its_checkpoint_are_gone(decoder: Chain, tmp_path: Path) -> None:
    expected = decoder.plain(DECODE)
    moved = tmp_path / "somewhere" / "else.bundle"
    shutil.copytree(decoder.bundle, moved)
    hidden = decoder.folder / "hidden"
    decoder.project.rename(hidden)
    try:
        done = tidalctl("run", moved, "--event", json.dumps(DECODE), cwd=tmp_path).ok()
        assert done.out == "".join(expected) + ("" if expected[-1].endswith("\n") else "\n")
        assert "ordinary way" not in done.err
    finally:
        hidden.rename(decoder.project)


def test_a_run_writes_nothing_into_the_bundle(decoder: Chain) -> None:
    before = files_below(decoder.bundle)
    assert decoder.run(DECODE)["strategy"] == "snapshot"
    assert files_below(decoder.bundle) == before
    assert not list(decoder.bundle.rglob("__pycache__"))


def test_a_generator_under_inference_mode_yields_the_same_pieces(decoder: Chain) -> None:
    report = decoder.run({"prompt": [9], "max_new_tokens": 3})
    assert report["streamed"] is True
    assert report["output"] == decoder.plain({"prompt": [9], "max_new_tokens": 3})
    assert len(report["output"]) == 3


def test_weights_lie_in_the_order_of_first_use_and_those_never_used_come_last(decoder: Chain) -> None:
    used = ["model.embedding.weight", "model.scale", "model.layers.2.weight", "model.layers.1.weight", "model.layers.0.weight"]
    with safe_open(decoder.bundle / "weights.safetensors", framework="pt") as file:
        keys = [name for name in file.offset_keys() if not name.startswith(".pad.")]
        tied = next(name for name in keys if name in ("model.embedding.weight", "model.head.weight"))
        assert keys == [tied, *used[1:], "model.unused.weight"]
        assert file.get_tensor("model.layers.1.weight").shape == (96, 96)
    weights = decoder.manifest["weights"]
    assert [weight["name"] for weight in weights] == keys
    assert all(weight["offset"] % 64 == 0 for weight in weights)
    assert [weight.get("first_use") for weight in weights] == [0, 1, 2, 3, 4, None]


def test_work_done_in_a_pool_of_threads_is_recorded(decoder: Chain) -> None:
    trace = read_trace(decoder.trace)
    call = trace.one(InitCall)
    assert call is not None and call.threads >= 1
    weights = {name: weight for weight in trace.of(Weight) for name in weight.names}
    layer = weights["model.layers.0.weight"]
    assert [(Path(source.file).name, source.key) for source in layer.sources] == [("decoder.safetensors", "layers.0.weight")]
    assert "aten.mul" in layer.operators
    assert weights["model.head.weight"] is weights["model.embedding.weight"]


def test_shards_of_at_most_the_size_asked_for_answer_alike(decoder: Chain, tmp_path: Path) -> None:
    done = tidalctl("compile", decoder.trace, "-o", tmp_path / "cut.bundle", "--shard-size", "80KB", cwd=tmp_path).ok()
    assert "snapshot" in done.err
    shards = sorted((tmp_path / "cut.bundle").glob("*.safetensors"))
    assert [shard.name for shard in shards] == [f"weights-{i:05}-of-00003.safetensors" for i in (1, 2, 3)]
    manifest = json.loads((tmp_path / "cut.bundle" / "manifest.json").read_bytes())
    for shard in shards:
        listed = [weight for weight in manifest["weights"] if weight["file"] == shard.name]
        assert sum(weight["nbytes"] for weight in listed) <= 80_000
        with safe_open(shard, framework="pt") as file:
            keys = [name for name in file.offset_keys() if not name.startswith(".pad.")]
            assert keys == [weight["name"] for weight in listed]
    assert [weight["name"] for weight in manifest["weights"]] == [weight["name"] for weight in decoder.manifest["weights"]]
    report = tidalctl("run", "cut.bundle", "--event", json.dumps(DECODE), "--json", cwd=tmp_path).report
    assert (report["strategy"], report["output"]) == ("snapshot", decoder.plain(DECODE))


def test_the_stock_tools_read_and_check_the_bundle_as_it_lies_there(decoder: Chain) -> None:
    listing = "".join(f"{stored['sha256']}  {name}\n" for name, stored in decoder.manifest["files"].items())
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet"], input=listing, text=True, cwd=decoder.bundle, timeout=60, capture_output=True
    )
    assert done.returncode == 0, done.stdout
