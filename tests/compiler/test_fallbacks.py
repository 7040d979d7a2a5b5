"""Never wrong, at worst slow, and it says why: what can't be reused is done again the ordinary way, and compile names the cause."""

import collections
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from conftest import Chain, forked, tidalctl
from sample_artifacts import sample_records, write_bundle
from warm import served

from tidalctl.artifacts.bundle.manifest import Answer, Fallback, Manifest, decode_manifest, encode_manifest, seal
from tidalctl.artifacts.state.skeleton import why_not_picklable
from tidalctl.artifacts.trace.records import InitCall
from tidalctl.compiler.explain import Verdict, explanation

DECODE = {"prompt": [3, 1, 4], "max_new_tokens": 5}
LAMBDA = """
import torch
import tidalctl


@tidalctl.init
def load(event):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    model.foo = lambda x: x * 2
    return {"model": model}


def handler(event, context):
    model = load(event)["model"]
    return model.foo(model(torch.ones(4))).tolist()
"""
UNSEEDED = """
import os
import torch
import tidalctl


@tidalctl.init
def load(event):
    return {"drawn": torch.frombuffer(bytearray(os.urandom(16)), dtype=torch.uint8)}


def handler(event, context):
    return len(load(event)["drawn"])
"""
LIES = """
import torch
import tidalctl


@tidalctl.init(static=True)
def load(event):
    return torch.full((2,), float(torch.current))


def handler(event, context):
    torch.current = event["x"]
    return load(event).tolist()
"""
SAMPLES = """
import torch
import tidalctl


@tidalctl.init(static=True)
def load(event):
    return {"weight": torch.arange(6.0)}


def handler(event, context):
    return (load(event)["weight"] * torch.rand(6)).tolist()
"""


def change_manifest(bundle: Path, change: Callable[[Manifest], Manifest]) -> None:
    """Write a manifest that is sealed as compile would seal it."""
    path = bundle / "manifest.json"
    path.write_bytes(encode_manifest(seal(change(decode_manifest(path.read_bytes(), path)))))


def change_fingerprint(bundle: Path, **changes: Any) -> None:
    def change(manifest: Manifest) -> Manifest:
        return msgspec.structs.replace(manifest, fingerprint=msgspec.structs.replace(manifest.fingerprint, **changes))

    change_manifest(bundle, change)


def test_a_lambda_in_the_state_falls_back_to_init_and_compile_prints_the_path_to_it(chain: Callable[..., Chain]) -> None:
    made = chain(LAMBDA, {})
    assert 'state["model"].foo: a lambda' in made.said()
    assert made.manifest["strategy"] == "eager"
    assert "(not-picklable); see docs/troubleshooting.md#not-picklable\n" in made.said()
    assert not list(made.bundle.glob("*.safetensors"))
    assert not (made.bundle / "skeleton.pickle").exists()
    report = made.run({})
    assert (report["strategy"], report["output"]) == ("eager", made.plain({}))
    assert 'state["model"].foo: a lambda' in report["fallback"] and report["cause"] == "not-picklable"


def test_weights_that_come_out_otherwise_each_time_are_no_snapshot(chain: Callable[..., Chain]) -> None:
    made = chain(UNSEEDED, {})
    assert made.manifest["strategy"] == "eager"
    (line,) = [line for line in made.said().splitlines() if "fallback" in line]
    assert "drawn" in line and "(not-reproducible)" in line
    assert "static=True" not in made.said(), "it would be a lie"
    tidalctl("plan", made.bundle, "--bandwidth", "1GB/s", cwd=made.folder).one_error("made anew each time (eager)", "inspect")


def test_a_static_init_that_lies_is_found_on_the_traced_events(chain: Callable[..., Chain]) -> None:
    made = chain(LIES, {"x": 1}, {"x": 2})
    assert made.manifest["strategy"] == "eager"
    assert made.manifest["fallbacks"][0]["code"] == "state-differs-by-event"
    assert "static=True" in made.said() and "event 1" in made.said()
    assert served(made, *({"x": x} for x in (1, 2, 3)))[0] == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]


@pytest.mark.slow
def test_a_function_that_samples_without_a_seed_is_found_and_only_its_weights_are_compared(chain: Callable[..., Chain]) -> None:
    made = chain(SAMPLES, {})
    assert made.manifest["reproducible"] is False
    assert "plain function's own runs differ" in made.said()
    assert made.manifest["strategy"] == "snapshot"
    report = made.run({})
    assert report["strategy"] == "snapshot"
    assert all(0 <= value <= index for index, value in enumerate(report["output"]))


@pytest.mark.parametrize(
    ("changes", "options", "told", "code"),
    [
        ({"distributions": {"torch": "0.4.1"}}, (), "0.4.1 in the trace", "packages-differ"),
        ({"cpu_capability": "Z80", "cpu_flags": "other"}, (), "Z80", "cpu-differs"),
        ({}, ("--eager",), "--eager", "eager-asked-for"),
    ],
)
def test_a_bundle_of_another_torch_or_cpu_runs_init_and_answers_right_as_every_bundle_does_with_eager(
    decoder: Chain, spoiled: Path, changes: dict[str, Any], options: tuple[str, ...], told: str, code: str
) -> None:
    if "distributions" in changes:
        changes = {"distributions": decoder.manifest["fingerprint"]["distributions"] | changes["distributions"]}
    change_fingerprint(spoiled, **changes)
    report = tidalctl("run", spoiled, "--event", json.dumps(DECODE), "--json", *options, cwd=spoiled.parent).report
    assert (report["strategy"], report["output"]) == ("eager", decoder.plain(DECODE))
    assert told in report["fallback"] and report["cause"] == code


@pytest.mark.parametrize(
    ("changes", "told", "options"),
    [
        ({"python": "3.99.0"}, "Python 3.99", ()),
        ({"implementation": "pypy"}, "pypy", ("--verify", "off")),
        ({"machine": "vax"}, "vax", ("--eager",)),
        ({"system": "Plan9"}, "Plan9", ()),
    ],
)
def test_a_bundle_of_another_interpreter_or_machine_is_refused(
    spoiled: Path, changes: dict[str, str], told: str, options: tuple[str, ...]
) -> None:
    change_fingerprint(spoiled, **changes)
    forked("run", spoiled, "--event", json.dumps(DECODE), *options, cwd=spoiled.parent).one_error(told)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_bundle_of_a_device_that_is_not_here_is_refused(spoiled: Path) -> None:
    change_fingerprint(spoiled, device="NVIDIA H200")
    tidalctl("run", spoiled, "--event", json.dumps(DECODE), cwd=spoiled.parent).one_error("NVIDIA H200")


class Refuses:
    def __reduce__(self) -> Any:
        raise ValueError("not me\nnor my second line")


def module_with(foo: Any) -> torch.nn.Module:
    module = torch.nn.Linear(2, 2)
    module.foo = foo
    return module


def parametrised() -> torch.nn.Module:
    return torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 2))


def graph() -> torch.Tensor:
    return torch.ones(2, requires_grad=True) * 2


def with_gradient() -> torch.Tensor:
    weight = torch.ones(2, requires_grad=True)
    (weight * 3).sum().backward()
    return weight


@pytest.mark.parametrize(
    ("state", "path", "what"),
    [
        (lambda: lambda: 1, "state", "a lambda"),
        (lambda: {"a": [1, (2, lambda: 1)]}, 'state["a"][1][1]', "a lambda"),
        (lambda: SimpleNamespace(inner=SimpleNamespace(f=lambda: 1)), "state.inner.f", "a lambda"),
        (lambda: {3: {"k": threading.Lock()}}, 'state[3]["k"]', "a _thread.lock"),
        (lambda: [Refuses()], "state[0]", "not me"),
        (lambda: {"file": open(__file__)}, 'state["file"]', "_io.TextIOWrapper"),  # noqa: SIM115
        (lambda: {"m": module_with(lambda: 1)}, 'state["m"].foo', "a lambda"),
        (lambda: [torch.nn.Sequential(module_with(lambda: 1))], "state[0][0].foo", "a lambda"),
        (lambda: torch.nn.ModuleDict({"a": module_with(threading.Lock())}), "state.a.foo", "a _thread.lock"),
        (lambda: parametrised(), "state", "parametrized"),
        (lambda: collections.OrderedDict(a=lambda: 1), 'state["a"]', "a lambda"),
        (lambda: {"kv": graph()}, 'state["kv"]', "no_grad"),
        (lambda: {"w": [with_gradient()]}, 'state["w"][0]', "gradient"),
        (lambda: (number for number in range(3)), "state", "a generator"),
        (lambda: graph.__code__, "state", "a code"),
    ],
)  # fmt: skip
def test_the_cause_names_the_way_to_what_refused(state: Callable[[], Any], path: str, what: str) -> None:
    told = why_not_picklable(state())
    assert told.startswith(f"{path}: "), told
    assert what in told, told
    assert "\n" not in told


RESIZABLE = """
import tidalctl
import torch


@tidalctl.init(static=True)
def load(event):
    return {"w": torch.arange(64.0)}


def handler(event, context):
    return {"seen": ["x", load(event)["w"].untyped_storage().resizable()]}
"""


def test_a_proof_that_fails_says_where_the_answers_part_and_keeps_neither(chain: Callable[..., Chain]) -> None:
    made = chain(RESIZABLE, {})
    assert "output['seen'][1] is false from the bundle, true from the plain function" in made.said()
    (fallback,) = made.manifest["fallbacks"]
    assert fallback["cause"] == "the proof: event 0: the answer differs"
    assert (fallback["strategy"], fallback["code"]) == ("eager", "proof-failed")


def test_a_replay_is_explained_by_what_is_answered_and_by_why_it_is_no_snapshot(tmp_path: Path) -> None:
    (read,) = [Answer(weight="m#w", file="project:m.safetensors", key="w", dtype="float32", shape=(2,), stride=(1,))]
    fallbacks = (Fallback(part="dynamic init", strategy="replay", cause="it draws", code="steps-differ"),)
    manifest = write_bundle(tmp_path / "app.bundle", strategy="replay", fallbacks=fallbacks)
    manifest = msgspec.structs.replace(manifest, answers=(read,))
    (call,) = (record for record in sample_records() if isinstance(record, InitCall))
    lines = explanation(manifest, call, Verdict(events=2, reproducible=True))
    assert "  1 tensor that init reads for every event: answered from the bundle" in lines
    assert "  the rest: init as it is, because it draws" in lines
    assert lines[lines.index("fell back:") + 1] == "  dynamic init: replay; cause: it draws (steps-differ)"
