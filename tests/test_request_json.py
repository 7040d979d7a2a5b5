"""JSON files that the event names: which of their numbers a script takes for others, and what of them must be as traced."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from random_bench import Bench, Verdict
from random_world import make_world
from test_random_programs import FILE, W, adapters, program

MIX = "mix = json.load(open(f\"adapters/{event['adapter']}/mix.json\"))\n"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(make_world(tmp_path_factory.mktemp("world"))) as made:
        yield made


def held(bench: Bench, body: str, **files: Any) -> Verdict:
    """A program that takes its numbers from mix.json, traced with those of the adapters a and b, and held against the others."""
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        Path(bench.world, "adapters", name, "mix.json").write_text(text)
    return bench.check(program(MIX + body, adapters("a", "b"), adapters(*(name for name in files if name not in "ab"))))


def test_keys_come_in_the_traced_order_or_the_start_steps_down(bench: Bench) -> None:
    body = f"w = {W}\nfor number in mix.values():\n    w = w * number + 1\nreturn {{'w': w}}"
    traced = {"a": {"a": 0.5, "b": 3.0}, "b": {"a": 0.25, "b": 5.0}}
    verdict = held(bench, body, **traced, c={"a": 0.75, "b": 4.0}, d={"b": 4.0, "a": 0.75})
    assert (verdict.outcome, verdict.served, verdict.refused) == ("sliced", 1, 1), verdict
    assert verdict.refusals[0].endswith("come in another order than in the traces")


def test_keys_within_come_in_the_traced_order_too(bench: Bench) -> None:
    body = f"return {{'w': {W} * mix['s'] * mix['by'][list(mix['by'])[0]]}}"
    alike = {"by": {"x": 2, "y": 3}}
    verdict = held(bench, body, a={"s": 0.5, **alike}, b={"s": 0.25, **alike}, c={"s": 2.5, "by": {"y": 3, "x": 2}})
    assert (verdict.outcome, verdict.served, verdict.refused) == ("sliced", 0, 1), verdict


def test_a_whole_number_that_no_operator_takes_may_index_a_list_and_is_one_of_the_traced(bench: Bench) -> None:
    body = f"return {{'w': {W} * ([1.0, 1.0, 2.0][mix['kind']] * mix['alpha'])}}"
    traced = {"a": {"kind": 0, "alpha": 1.5}, "b": {"kind": 1, "alpha": 3.0}}
    verdict = held(bench, body, **traced, c={"kind": 2, "alpha": 1.5}, d={"kind": 0, "alpha": 4.5})
    assert (verdict.outcome, verdict.served, verdict.refused) == ("sliced", 1, 1), verdict
    assert verdict.refusals[0].endswith("differs from the traced ones in more than alpha")


@pytest.mark.parametrize(
    ("alphas", "served"), [((16, 35), 2), ((16, 10), 1)], ids=["the scale differs in the traces", "it is the same"]
)
def test_a_whole_number_that_operators_take_may_be_any(bench: Bench, alphas: tuple[int, int], served: int) -> None:
    one, other = alphas
    traced = {"a": {"r": 8, "alpha": one}, "b": {"r": 5, "alpha": other}}
    body = f"return {{'w': {W} + {FILE}['delta'] * (mix['alpha'] / mix['r'])}}"
    verdict = held(bench, body, **traced, d={"r": 3, "alpha": 6}, f={"r": 2, "alpha": 6})
    assert (verdict.outcome, verdict.served) == ("sliced", served), verdict


HANDED_TO_NUMPY = (
    "np.clip(s, 0, 4)",
    "np.minimum(s, 4)",
    "np.array(s).clip(0, 4)",
    "np.array([[s, 4]]).min()",
    "np.asarray(s).clip(0, 4)",
    "np.float64(s).clip(0, 4)",
    "(np.ones(1) * s).clip(0, 4)[0]",
    "(s * np.ones(1)).clip(0, 4)[0]",
    "(np.float32(1) * s).clip(0, 4)",
    "np.full(1, s).clip(0, 4)[0]",
    "np.full(1, fill_value=s).clip(0, 4)[0]",
    "np.interp(s, [0, 4], [0, 4])",
    "np.where(True, s, 0).clip(0, 4)",
    "np.int64(s).clip(0, 4)",
    "np.array(s, dtype=np.int8).clip(0, 4)",
)


@pytest.mark.parametrize("kind", [float, int])
@pytest.mark.parametrize("use", HANDED_TO_NUMPY)
def test_a_number_of_a_file_that_goes_to_numpy_is_one_of_the_traced(bench: Bench, use: str, kind: type) -> None:
    body = f"s = mix['s']\nreturn {{'w': {W} * float({use})}}"
    traced = {"a": {"s": kind(2)}, "b": {"s": kind(3)}}
    verdict = held(bench, body, **traced, c={"s": kind(7)})
    assert verdict.outcome == "fallback" or (verdict.served, verdict.refused) == (0, 1), verdict


@pytest.mark.parametrize("use", HANDED_TO_NUMPY)
def test_a_number_of_the_event_that_goes_to_numpy_is_one_of_the_traced(bench: Bench, use: str) -> None:
    body = f"s = event['scale']\nreturn {{'w': {W} * float({use})}}"
    verdict = bench.check(program(body, [{"scale": 2.5}, {"scale": 3.5}], [{"scale": 7.5}]))
    assert verdict.outcome == "fallback" or (verdict.served, verdict.refused) == (0, 1), verdict


@pytest.mark.parametrize("other", ["a field", "a file"])
def test_what_two_files_hold_goes_together_only_as_in_a_traced_event(bench: Bench, other: str) -> None:
    """Each of the two was traced, and the pair was not."""
    for name, kind in (("a", "p"), ("b", "q")):
        Path(bench.world, "adapters", name, "mix.json").write_text(json.dumps({"kind": kind}))
        Path(bench.world, f"style_{kind}.json").write_text(json.dumps({"kind": kind}))
    style = "json.load(open(f\"style_{event['style']}.json\"))['kind']" if other == "a file" else "event['style']"
    body = f"{MIX}return {{'w': {W} * (1.0 if mix['kind'] == {style} else 5.0) * event['scale']}}"
    verdict = bench.check(
        program(body, adapters("a", "b", style=["p", "q"], scale=[0.5, 1.7]), adapters("a", style="q", scale=2.5))
    )
    assert verdict.outcome == "fallback" and "may choose by 2 things at once" in verdict.reason, verdict


READS = {
    "json.load(file)": True,
    "json.load(open(file.name, 'rb'))": True,
    "json.load(file, parse_float=float)": True,
    "parse(file)": True,
    "json.loads(file.read().strip())": True,
    "json.loads(Path(file.name).read_bytes())": True,
    "json.JSONDecoder().decode(file.read())": True,
    "ast.literal_eval(file.read())": False,
    "json.JSONDecoder().raw_decode(file.read())[0]": False,
    "json.loads(file.read().replace('}', ', \"t\": 1}'))": False,
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("compared", [True, False])
def test_a_number_is_any_only_where_somebody_saw_what_init_did_with_it(bench: Bench, read: str, compared: bool) -> None:
    """Whatever the parser, and the name by which it was imported."""
    path = "adapters/{event['adapter']}/mix.json"
    body = (
        f'import ast\nfrom json import load as parse\nwith open(f"{path}", newline=None) as file:\n    mix = {read}\n'
        f"return {{'w': {W} * ({'mix[chr(115)] if mix[chr(115)] < 4 else 4.0' if compared else 'mix[chr(115)]'})}}"
    )
    for name, number in (("a", 1.5), ("b", 3.0), ("c", 6.0)):
        Path(bench.world, "adapters", name, "mix.json").write_bytes(b'{"s":\r\n%f}\r\n' % number)
    verdict = bench.check(program(body, adapters("a", "b"), adapters("c")))
    served = int(READS[read] and not compared)
    assert verdict.outcome == "fallback" or (verdict.served, verdict.refused) == (served, 1 - served), verdict
    assert verdict.outcome == "sliced" or not READS[read]


LINES = '{"n": 2}\n{"n": 3}\n'
COMMENTED = '// what it is for\n{"n": 2}\n'


@pytest.mark.parametrize(
    ("text", "use"),
    [
        (LINES, "json.loads(text.splitlines()[1])['n']"),
        (COMMENTED, "len(text)"),
        ("", "len(text)"),
        ("[" * 100_000, "len(text)"),
    ],
    ids=["lines", "comments", "empty", "deep"],
)
def test_a_file_that_is_json_by_name_alone_is_as_traced_in_all_of_it(bench: Bench, text: str, use: str) -> None:
    for name in "abcd":
        Path(bench.world, "adapters", name, "mix.json").write_text(text + " " * (name == "d"))
    body = f"text = Path('adapters', event['adapter'], 'mix.json').read_text()\nreturn {{'w': {W} * {use} * event['scale']}}"
    verdict = bench.check(program(body, adapters("a", "b", scale=[0.5, 1.7]), adapters("c", "d", scale=0.1)))
    assert (verdict.outcome, verdict.served, verdict.refused) == ("sliced", 1, 1), verdict
    assert "is none of the traced ones" in verdict.refusals[0]


def test_half_of_a_surrogate_pair_is_a_text_like_any_other(bench: Bench) -> None:
    body = f"return {{'w': {W} * mix['s']}}"
    files = {"a": {"s": 0.5, "t": "\ud800"}, "b": {"s": 1.5, "t": "\ud800"}, "c": {"s": 2.5, "t": "\ud800"}}
    verdict = held(bench, body, **files, d={"s": 2.5, "t": "\ud801"})
    assert (verdict.outcome, verdict.served, verdict.refused) == ("sliced", 1, 1), verdict


def test_half_of_a_surrogate_pair_in_the_event_is_a_text_like_any_other(bench: Bench) -> None:
    body = f"t = event['t']\nreturn {{'w': {W} * event['scale']}}"
    events = [
        [{"t": "\ud800", "scale": 0.5}, {"t": "\ud800", "scale": 1.5}],
        [{"t": "\ud800", "scale": 2.5}, {"t": "\ud801", "scale": 2.5}],
    ]
    verdict = bench.check(program(body, *events))
    assert (verdict.outcome, verdict.served, verdict.refused) == ("sliced", 1, 1), verdict
