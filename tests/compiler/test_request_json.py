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
    assert verdict.refusals[0].endswith("differs from the traced ones in more than a, b")


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
