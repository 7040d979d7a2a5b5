"""Random small programs: what their dynamic programs make is what they make plainly, or there is a name for why there is none."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import plain, tidalctl
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from random_author import RandomProgram, random_program
from random_bench import Bench, Verdict, Wrong, chances, sort_of
from random_draft import HEAD
from random_world import Event, make_world

PROGRAMS = 500
SAMPLE = 150


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(make_world(tmp_path_factory.mktemp("world"))) as made:
        yield made


def test_500_random_programs_are_right_or_named(bench: Bench) -> None:
    @settings(
        derandomize=True,
        max_examples=PROGRAMS,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # a smaller seed is no smaller program
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(st.integers(0, 2**64 - 1))  # a seed: drawing each choice from hypothesis gives the same few programs again and again
    def right_or_named(seed: int) -> None:
        verdict = bench.check(random_program(random.Random(seed)))
        seen.append(verdict)
        assert verdict.outcome == "sliced" or verdict.reason

    seen: list[Verdict] = []
    right_or_named()
    assert len(seen) >= PROGRAMS


def test_most_random_programs_get_a_program_and_it_answers_events_that_no_trace_saw(bench: Bench) -> None:
    verdicts = [bench.check(random_program(chance)) for chance in chances(SAMPLE)]
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    reasons = Counter(sort_of(verdict.reason) for verdict in verdicts)
    assert outcomes["sliced"] > 0.3 * SAMPLE, reasons.most_common()
    assert outcomes["raises"] < 0.05 * SAMPLE, reasons.most_common()
    assert sum(verdict.served for verdict in verdicts) > SAMPLE / 4
    traced = [reason for verdict in verdicts for reason in verdict.refusals if reason.startswith("TRACED")]
    assert not traced


# -- what was found by them, each as small as it came


def program(body: str, traced: list[Event], unseen: list[Event]) -> RandomProgram:
    lines = ["    " + line for line in body.strip().split("\n")]
    return RandomProgram("\n".join([HEAD, "", "def load(event):", *lines, ""]), traced, unseen)


def adapters(*names: str, **fields: Any) -> list[Event]:
    """An event for each name. A field that is a list has a value for each."""
    return [
        {"adapter": name} | {key: value[place] if isinstance(value, list) else value for key, value in fields.items()}
        for place, name in enumerate(names)
    ]


FILE = 'load_file("adapters/" + event["adapter"] + "/adapter.safetensors")'
W = 'load_file("base.safetensors")["layers.0.weight"]'
WRONG_ONCE = {
    "a file whose tensors go nowhere is missing": (
        f"unused = {FILE}\nreturn {{'w': {W} * event['scale']}}",
        adapters("a", "b", scale=[0.5, 1.7]),
        adapters("gone", "cut", scale=0.1),
    ),
    "a key whose tensor goes nowhere is missing": (
        f"adapter = {FILE}\nunused = adapter['layers.1.B']\nreturn {{'w': {W} + adapter['delta']}}",
        adapters("a", "b"),
        adapters("short", "c"),
    ),
    "what goes nowhere raises": (
        f"adapter = {FILE}\nunused = {W} + adapter['layers.0.B'] @ adapter['layers.0.A']\nreturn {{'w': {W} * event['scale']}}",
        adapters("b", "g", scale=[0.5, 1.7]),
        adapters("wide", scale=0.1),
    ),
    "a size that agrees in the traces is a number": (
        f"w = {W}\nw.add_(len({FILE}['layers.0.A']))\nw.mul_(event['scale'])\nreturn {{'w': w}}",
        adapters("b", "f", scale=[0.5, 1.7]),
        adapters("a", scale=0.1),
    ),
    "a size that agrees in the traces moves the generator": (
        f"torch.empty_like({FILE}['layers.0.A']).uniform_()\nreturn {{'w': {W} * event['scale']}}",
        adapters("a", "d", scale=[0.5, 1.7]),
        adapters("h", scale=0.1),
    ),
    "two reads of a file share its mapping": (
        'base = safe_open("base.safetensors", framework="pt")\nwhole = base.get_slice("layers.0.weight")[:, :]\n'
        'part = base.get_slice("layers.0.weight")[1:3]\nwhole *= event["scale"]\nreturn {"part": part}',
        [{"scale": 0.5}, {"scale": 1.7}],
        [{"scale": 0.1}],
    ),
    "what is written to a shared mapping agrees in the traces": (
        'base = safe_open("base.safetensors", framework="pt")\nwhole = base.get_slice("layers.0.weight")[:, :]\n'
        'base.get_slice("layers.0.weight")[1:3].t()[0].add_(event["scale"])\nreturn {"whole": whole}',
        [{"scale": 3}, {"scale": 3}],
        [{"scale": 0.1}],
    ),
    "a number in the state is computed through math": (
        f"return {{'w': {W}, 'number': event['alpha'] / math.sqrt(event['r'])}}",
        [{"alpha": 16, "r": 8}, {"alpha": 8, "r": 2}],
        [{"alpha": 4, "r": 8}],
    ),
    "other amounts of random numbers leave one state of the generator": (
        f"torch.empty_like({FILE}['layers.0.A']).normal_()\nreturn {{'w': {W} * event['scale']}}",
        adapters("e", "a", scale=[0.5, 1.7]),
        adapters("g", scale=0.1),
    ),
    "a file that only torch reads, and settings, beside one another": (
        'config = json.loads(Path("adapters", event["adapter"], "adapter.json").read_bytes())\n'
        "adapter = torch.load('adapters/' + event['adapter'] + '/adapter.pt')\nreturn {'w': adapter['B'] @ adapter['A']}",
        adapters("c", "f"),
        adapters("g", "a"),
    ),
    "a number in the state is computed from the event": (
        f"return {{'w': {W}, 'number': event['scale'] * event['alpha']}}",
        [{"scale": 0.25, "alpha": 16}, {"scale": 0.5, "alpha": 8}],
        [{"scale": 1.7, "alpha": 4}],
    ),
    "a branch is taken by two fields": (
        f"w = {W}\nif event['alpha'] > event['r'] * 4:\n    w.mul_(event['scale'])\nreturn {{'w': w}}",
        [{"scale": 0.1, "alpha": 16, "r": 4}, {"scale": 0.25, "alpha": 16, "r": 8}],
        [{"scale": 2.0, "alpha": 16, "r": 2}],
    ),
    "a compared number is also computed with": (
        f"w = {W}\nw.mul_(event['alpha'] - event['r'])\nif event['alpha'] == 16:\n    pass\nreturn {{'w': w}}",
        [{"alpha": 16, "r": 8}, {"alpha": 8, "r": 4}],
        [{"alpha": 16, "r": 4}],
    ),
    "a slice is all of a tensor for one event": (
        f"w = {FILE}['delta']\nw[:event['n']] += 1\nreturn {{'w': w}}",
        adapters("c", "f", n=[5, 1]),
        adapters("a", n=2),
    ),
    "a copy of a read, and the read, are both in the state": (
        f"delta = {FILE}['delta']\nlayer = torch.nn.Linear(8, 4, bias=False)\n"
        "with torch.no_grad():\n    layer.weight.copy_(delta)\nreturn {'a': layer.weight.detach(), 'b': delta}",
        adapters("f", "d"),
        adapters("a"),
    ),
    "seeded numbers go into a weight": (
        "torch.manual_seed(3)\nw = torch.randn(4, 8)\nw.mul_(event['scale'])\nreturn {'w': w}",
        [{"scale": 0.5}, {"scale": 1.7}],
        [{"scale": 0.1}],
    ),
    "seeded numbers are drawn alike something of the event's": (
        f"torch.manual_seed(3)\nreturn {{'w': torch.rand_like({FILE}['delta'])}}",
        adapters("a", "b"),
        adapters("c"),
    ),
    "a ratio that agrees in the traces is scaled": (
        f"w = {W}.max(dim=0).values\nw *= event['alpha'] * 0.7 / event['r']\nreturn {{'w': w}}",
        [{"alpha": 4, "r": 2}, {"alpha": 8, "r": 4}],
        [{"alpha": 8, "r": 2}],
    ),
    "a ratio that agrees in the traces makes a static weight": (
        f"return {{'w': {W} * (event['alpha'] / event['r'])}}",
        [{"alpha": 4, "r": 2}, {"alpha": 8, "r": 4}],
        [{"alpha": 8, "r": 2}],
    ),
    "a number of a JSON file agrees as a ratio": (
        'config = json.loads(Path("adapters", event["adapter"], "adapter.json").read_text())\n'
        "return {'w': torch.full((4, 8), config['alpha'] / config['r'])}",
        adapters("d", "f"),
        adapters("e"),
    ),
    "an integer where the traces had a float": (
        "return {'w': torch.full((4, 8), float(-event['scale']))}",
        [{"scale": 2.0}, {"scale": 1.7}],
        [{"scale": 3}],
    ),
    "NumPy writes to a weight": (
        f"w = {W}\nw.numpy()[0] += 3\nreturn {{'w': w, 'other': {W} + {FILE}['delta']}}",
        adapters("a", "b"),
        adapters("c"),
    ),
}
FELL_BACK_ONCE = {
    "an operator writes to a view": (
        f"w = {FILE}['delta']\nw[:2] += 1\nw.t().mul_(event['scale'])\nreturn {{'w': w}}",
        adapters("a", "b", scale=[0.5, 1.7]),
        adapters("f", scale=0.1),
    ),
    "a weight is a view": (
        f"return {{'w': ({FILE}['delta'] * 2.5).t()}}",
        adapters("a", "b"),
        adapters("d"),
    ),
    "torch.load takes a path object": (
        "return {'w': torch.load(Path('adapters') / event['adapter'] / 'adapter.pt')['delta']}",
        adapters("b", "f"),
        adapters("h"),
    ),
    "adapters of two ranks": (
        f"adapter = {FILE}\nw = {W}\nw += adapter['layers.0.B'] @ adapter['layers.0.A'] * (event['alpha'] / event['r'])\n"
        "return {'w': w}",
        adapters("a", "b", alpha=[16.0, 7.0], r=[3.0, 8.0]),
        adapters("d", "f", alpha=[4.0, 5.0], r=[7.0, 3.0]),
    ),
}


@pytest.mark.parametrize("name", WRONG_ONCE)
def test_what_came_out_wrong_once_is_right_or_named(bench: Bench, name: str) -> None:
    verdict = bench.check(program(*WRONG_ONCE[name]))
    assert verdict.outcome == "sliced" or verdict.reason


@pytest.mark.parametrize("name", FELL_BACK_ONCE)
def test_what_fell_back_for_nothing_once_has_a_program_that_serves(bench: Bench, name: str) -> None:
    made = program(*FELL_BACK_ONCE[name])
    verdict = bench.check(made)
    assert (verdict.outcome, verdict.reason, verdict.refusals) == ("sliced", "", [])
    assert verdict.served == len(made.unseen)


def test_the_harness_sees_a_wrong_weight_a_shared_one_and_a_moved_generator(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What holds programs against plain runs must notice when they differ."""
    import random_bench

    original = random_bench.program_source
    made = program(f"return {{'w': {FILE}['delta'], 'v': {W} * event['scale']}}", adapters("a", "b", scale=[0.5, 1.7]), [])
    assert bench.check(made).outcome == "sliced"
    for line in (
        "made['v'].add_(1)",
        "made['v'] = made['w']",
        "torch.rand(1)",
        "made['v'] = made['v'].double()",
        "made.pop('w')",
    ):

        def spoiled(*arguments: Any, line: str = line) -> str:
            return original(*arguments).replace("    return made\n", f"    {line}\n    return made\n")

        monkeypatch.setattr(random_bench, "program_source", spoiled)
        with pytest.raises(Wrong):
            bench.check(made)


# -- through the commands

HANDLER = """

def handler(event, context):
    state = load(event)
    return {name: [str(t.dtype), list(t.shape), t.flatten().tolist()] for name, t in state.items()} | {"note": event["note"]}
"""
WHOLE = {
    "safetensors and JSON": (
        f"""
config = json.loads(Path(event["folder"], "adapter.json").read_text())
base, adapter, state = load_file("base.safetensors"), load_file(os.path.join(event["folder"], "adapter.safetensors")), {{}}
for i in range(2):
    state[f"w{{i}}"] = base[f"layers.{{i}}.weight"]
    state[f"w{{i}}"] += (adapter[f"layers.{{i}}.B"] @ adapter[f"layers.{{i}}.A"]) * (config["alpha"] / config["r"])
state["last"] = {W} * event["scale"]
return state
""",
        {"scale": [0.5, 1.7, 0.1, 3.5]},
    ),
    "torch.save files and views": (
        """
adapter = torch.load(f"adapters/{event['adapter']}/adapter.pt", mmap=True)
w = torch.load("base.pt")["layers"]["w"]
w[:2] += adapter["delta"][:2]
w.t()[0].mul_(event["scale"])
return {"w": w, "tied": w, "half": adapter["delta"].to(torch.float16)}
""",
        {"scale": [0.5, 1.7, 0.1, 3.5]},
    ),
    "a mode, and a layer that is drawn and overwritten": (
        f"""
layer = torch.nn.Linear(8, 4, bias=False)
with torch.no_grad():
    layer.weight.copy_({FILE}["delta"] * SCALES[event["mode"]])
return {{"w": layer.weight.detach(), "sum": {W} + layer.weight.detach()}}
""",
        {"mode": ["x", "x", "x", "z"]},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_program_goes_through_trace_compile_and_run(tmp_path: Path, name: str) -> None:
    body, fields = WHOLE[name]
    make_world(tmp_path)
    source = program(body, [], []).source.replace("import torch\n", "import torch\nimport tidalctl\n")
    (tmp_path / "app.py").write_text(source.replace("def load(", "\n@tidalctl.init\ndef load(") + HANDLER)
    events = [
        {**event, "folder": f"adapters/{event['adapter']}", "note": place}
        for place, event in enumerate(adapters("a", "b", "d", "f", **fields))
    ]
    given = [word for event in events[:2] for word in ("--event", json.dumps(event))]
    tidalctl("trace", "app.py", *given, cwd=tmp_path).ok()
    said = tidalctl("compile", "app.trace", cwd=tmp_path).ok().err
    assert json.loads((tmp_path / "app.bundle" / "manifest.json").read_bytes())["strategy"] == "script", said
    for event in events:
        report = tidalctl("run", "app.bundle", "--event", json.dumps(event), "--json", cwd=tmp_path).report
        assert report["output"] == plain(tmp_path, event), (event, report)
        # the other two have numbers, or a mode, with which the unseen events fail a check
        if event in events[:2] or name == "torch.save files and views":
            assert report["strategy"] == "script", report
