"""Random inits, and those that were found by them: a script answers an event of no trace as the plain init does, or refuses it."""

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import random_bench
import torch
from random_bench import Bench, Verdict, Wrong
from random_inits import FIELDS, HEAD, Event, RandomProgram, make_world, random_program

FILE = "load_file(f\"adapters/{event['adapter']}/adapter.safetensors\")"
W = 'load_file("base.safetensors")["w"]'
MIX = "mix = json.load(open(f\"adapters/{event['adapter']}/mix.json\"))\n"
MORE = "more = torch.load(f\"adapters/{event['adapter']}/more.pt\")\n"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(make_world(tmp_path_factory.mktemp("world"))) as made:
        yield made


@pytest.mark.parametrize("count", [150, pytest.param(1500, marks=pytest.mark.slow)])
def test_random_inits_are_never_wrong_and_many_have_a_script_that_serves_events_of_no_trace(bench: Bench, count: int) -> None:
    verdicts = [bench.check(random_program(random.Random(seed))) for seed in range(count)]
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    reasons = Counter(verdict.reason for verdict in verdicts).most_common()
    assert all(verdict.outcome == "script" or verdict.reason for verdict in verdicts)
    assert outcomes["script"] > 0.3 * count and outcomes["raises"] < 0.05 * count, (outcomes, reasons)
    assert sum(verdict.served for verdict in verdicts) > 0.25 * count
    assert sum(len(verdict.refusals) for verdict in verdicts) > 0.1 * count
    assert not [verdict for verdict in verdicts if verdict.traced_refusals]


def program(body: str, traced: list[Event], unseen: list[Event]) -> RandomProgram:
    source = HEAD + "".join(f"    {line}\n" for line in body.strip().split("\n"))
    return RandomProgram(source, traced, unseen, (*FIELDS, "t"))


def adapters(*names: str, **fields: Any) -> list[Event]:
    """An event for each name. A field that is a list has a value for each."""
    return [
        {"adapter": name} | {key: value[place] if isinstance(value, list) else value for key, value in fields.items()}
        for place, name in enumerate(names)
    ]


SCALED = f"return {{'w': {W} * event['scale']}}"
TWO: dict[str, Any] = {"scale": [0.5, 1.7]}
WRONG_ONCE = {
    "a file whose tensors go nowhere is missing": (
        f"unused = {FILE}\n{SCALED}", adapters("a", "b", **TWO), adapters("gone", "cut", scale=0.1),
    ),
    "what goes nowhere raises": (
        f"unused = {W} + {FILE}['B'] @ {FILE}['A']\n{SCALED}", adapters("b", "g", **TWO), adapters("wide", scale=0.1),
    ),
    "a size that agrees in the traces is a number": (
        f"w = {W} * event['scale']\nw.add_(len({FILE}['A']))\nreturn {{'w': w}}",
        adapters("b", "f", **TWO), adapters("a", scale=0.1),
    ),
    "a size that agrees in the traces moves the generator": (
        f"torch.empty_like({FILE}['A']).uniform_()\n{SCALED}", adapters("a", "d", **TWO), adapters("h", scale=0.1),
    ),
    "other amounts of random numbers leave one state of the generator": (
        f"torch.empty_like({FILE}['A']).normal_()\n{SCALED}", adapters("e", "a", **TWO), adapters("g", scale=0.1),
    ),
    "two reads of a file share its mapping": (
        "base = safe_open('base.safetensors', framework='pt')\nwhole = base.get_slice('w')[:, :]\n"
        "part = base.get_slice('w')[1:3]\nwhole *= event['scale']\nreturn {'part': part}",
        [{"scale": 0.5}, {"scale": 1.7}], [{"scale": 0.1}],
    ),
    "a number in the state is computed": (
        f"return {{'w': {W}, 'number': event['alpha'] / math.sqrt(event['r'])}}",
        [{"alpha": 16, "r": 8}, {"alpha": 8, "r": 2}], [{"alpha": 4, "r": 8}],
    ),
    "a compared number is also computed with": (
        f"w = {W}\nw.mul_(event['alpha'] - event['r'])\nif event['alpha'] == 16:\n    pass\nreturn {{'w': w}}",
        [{"alpha": 16, "r": 8}, {"alpha": 8, "r": 4}], [{"alpha": 16, "r": 4}],
    ),
    "a slice is all of a tensor for one event": (
        f"w = {FILE}['delta']\nw[:event['n']] += 1\nreturn {{'w': w}}", adapters("c", "f", n=[5, 1]), adapters("a", n=2),
    ),
    "a copy of a read, and the read, are both in the state": (
        f"delta = {FILE}['delta']\nlayer = torch.nn.Linear(8, 4, bias=False)\n"
        "with torch.no_grad():\n    layer.weight.copy_(delta)\nreturn {'a': layer.weight.detach(), 'b': delta}",
        adapters("f", "d"), adapters("a"),
    ),
    "seeded numbers are drawn alike something of the event's": (
        f"torch.manual_seed(3)\nreturn {{'w': torch.rand_like({FILE}['delta'])}}", adapters("a", "b"), adapters("c"),
    ),
    "a ratio that agrees in the traces makes a static weight": (
        f"return {{'w': {W} * (event['alpha'] / event['r'])}}",
        [{"alpha": 4, "r": 2}, {"alpha": 8, "r": 4}], [{"alpha": 8, "r": 2}],
    ),
    "a whole quotient that was exact in the traces": (
        "return {'w': torch.full((4, 8), float(event['alpha'] // event['r']))}",
        [{"alpha": 32, "r": 2}, {"alpha": 16, "r": 4}], [{"alpha": 4, "r": 8}, {"alpha": 8, "r": 2}],
    ),
    "an integer where the traces had a float": (
        "return {'w': torch.full((4, 8), float(-event['scale']))}", [{"scale": 2.0}, {"scale": 1.7}], [{"scale": 3}],
    ),
    "NumPy writes to a weight": (
        f"w = {W}\nw.numpy()[0] += 3\nreturn {{'w': w, 'other': {W} + {FILE}['delta']}}", adapters("a", "b"), adapters("c"),
    ),
}  # fmt: skip
SERVED = {
    "an operator writes to a view": (
        f"w = {FILE}['delta']\nw[:2] += 1\nw.t().mul_(event['scale'])\nreturn {{'w': w}}",
        adapters("a", "b", **TWO), adapters("f", scale=0.1),
    ),
    "a weight is a view": (f"return {{'w': ({FILE}['delta'] * 2.5).t()}}", adapters("a", "b"), adapters("d")),
    "torch.load takes a path object": (
        "return {'w': torch.load(Path('adapters') / event['adapter'] / 'adapter.pt')['delta']}", adapters("b", "f"), adapters("h"),
    ),
    "adapters of two ranks": (
        f"w = {W}\nw += {FILE}['B'] @ {FILE}['A'] * (event['alpha'] / event['r'])\nreturn {{'w': w}}",
        adapters("a", "b", alpha=[16.0, 7.0], r=[3.0, 8.0]), adapters("d", "f", alpha=[4.0, 5.0], r=[7.0, 3.0]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*WRONG_ONCE, *SERVED])
def test_what_came_out_wrong_or_fell_back_once_is_right_or_named_and_served(bench: Bench, name: str) -> None:
    made = program(*(WRONG_ONCE | SERVED)[name])
    verdict = bench.check(made)
    assert verdict.outcome == "script" or verdict.reason
    assert not verdict.traced_refusals
    if name in SERVED:
        assert (verdict.outcome, verdict.served) == ("script", len(made.unseen)), verdict


def test_the_harness_sees_a_wrong_weight_a_shared_one_and_a_moved_generator(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What holds scripts against plain runs must notice when they differ."""
    original = random_bench.program_source
    made = program(f"return {{'w': {FILE}['delta'], 'v': {W} * event['scale']}}", adapters("a", "b", **TWO), [])
    assert bench.check(made).outcome == "script"
    wrong = ("made['v'].add_(1)", "made['v'] = made['w']", "torch.rand(1)", "made['v'] = made['v'].double()", "made.pop('w')")
    for line in wrong:

        def spoiled(*arguments: Any, line: str = line) -> str:
            return original(*arguments).replace("    return made\n", f"    {line}\n    return made\n")

        monkeypatch.setattr(random_bench, "program_source", spoiled)
        with pytest.raises(Wrong):
            bench.check(made)


# -- what init reads of a request's files besides their tensors is as traced, or the start steps down


def held(bench: Bench, body: str, write: Callable[[Path, Any], Any], *files: Any, **fields: Any) -> Verdict:
    """The adapters a and b of the traces have the first two files, and c, d ... the others."""
    names = "abcdefgh"[: len(files)]
    for name, content in zip(names, files, strict=True):
        write(bench.world / "adapters" / name, content)
    unseen = adapters(*names[2:], **dict.fromkeys(fields, 0.1))
    return bench.check(program(body, adapters("a", "b", **fields), unseen))


def write_mix(folder: Path, content: Any) -> None:
    (folder / "mix.json").write_text(content if isinstance(content, str) else json.dumps(content))


BY = {"x": 2, "y": 3}
TEXT = f"text = Path('adapters', event['adapter'], 'mix.json').read_text()\nreturn {{'w': {W} * len(text) * event['scale']}}"
JSON_FILES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "a number that an operator takes may be any": (
        f"{MIX}return {{'w': {W} * (mix['alpha'] / mix['r'])}}",
        [{"r": 8, "alpha": 16}, {"r": 5, "alpha": 35}, {"r": 3, "alpha": 6}], {},
    ),
    "the order of keys": (
        f"{MIX}w = {W}\nfor number in mix.values():\n    w = w * number + 1\nreturn {{'w': w}}",
        [{"a": 0.5, "b": 3.0}, {"a": 0.25, "b": 5.0}, {"a": 0.75, "b": 4.0}, {"b": 4.0, "a": 0.75}], {},
    ),
    "the order of keys within": (
        f"{MIX}return {{'w': {W} * mix['s'] * mix['by'][list(mix['by'])[0]]}}",
        [{"s": 0.5, "by": BY}, {"s": 0.25, "by": BY}, {"s": 0.1, "by": BY}, {"s": 2.5, "by": {"y": 3, "x": 2}}], {},
    ),
    "a number that no operator takes": (
        f"{MIX}return {{'w': {W} * ([1.0, 1.0, 2.0][mix['kind']] * mix['alpha'])}}",
        [{"kind": 0, "alpha": 1.5}, {"kind": 1, "alpha": 3.0}, {"kind": 0, "alpha": 4.5}, {"kind": 2, "alpha": 1.5}], {},
    ),
    "a text, half of a surrogate pair": (
        f"{MIX}return {{'w': {W} * mix['s']}}", [{"s": s, "t": "\ud800"} for s in (0.5, 1.5, 2.5)] + [{"s": 2.5, "t": "\ud801"}], {},
    ),
    **{
        f"all of a file that is JSON by name alone, {name}": (TEXT, [text, text, text, f"{text} "], TWO)
        for name, text in (("lines", '{"n": 2}\n{"n": 3}\n'), ("a comment", '// n\n{"n": 2}'), ("deep", "[" * 100_000))
    },
}  # fmt: skip


@pytest.mark.parametrize("name", JSON_FILES)
def test_a_json_file_is_as_traced_but_for_numbers_that_operators_take(bench: Bench, name: str) -> None:
    body, files, fields = JSON_FILES[name]
    verdict = held(bench, body, write_mix, *files, **fields)
    assert (verdict.outcome, verdict.served, len(verdict.refusals)) == ("script", 1, len(files) - 3), verdict
    assert all("differs from the traced ones" in told or "none of the traced ones" in told for told in verdict.refusals)


@pytest.mark.parametrize(
    ("use", "spoil"),
    [
        ("more['alpha']", {"alpha": 2.0}),
        ("len(more)", {"another": ""}),
        ("len(more['names'])", {"names": ["q"]}),
        ("1 + (list(more)[0] == 't')", {"alpha": None}),
        ("1 + more['t'].requires_grad", {"t": torch.ones(4, 8, requires_grad=True)}),
        ("1 + more['t'].is_contiguous()", {"t": torch.ones(8, 4).t()}),
    ],
)
def test_what_lies_beside_the_tensors_of_a_torch_file_is_as_traced(bench: Bench, use: str, spoil: dict[str, Any]) -> None:
    alike = {"alpha": 2, "names": ["q", "v"], "by": {3: "x"}, "t": torch.ones(4, 8)}
    other = {key: value for key, value in (alike | spoil).items() if value is not None}
    files = (alike, alike | {"t": torch.ones(4, 8) * 3}, alike | {"t": -torch.ones(4, 8)}, other)
    body = f"{MORE}return {{'w': {W} + more['t'].detach() * ({use})}}"
    verdict = held(bench, body, lambda folder, value: torch.save(value, folder / "more.pt"), *files)
    assert (verdict.outcome, verdict.served, len(verdict.refusals)) == ("script", 1, 1), verdict
    assert "besides its tensors is none of the traced ones" in verdict.refusals[0]


def test_a_torch_file_that_only_full_unpickling_reads_makes_no_script(bench: Bench) -> None:
    stored = {"t": torch.ones(4, 8), "options": argparse.Namespace(alpha=2)}
    opened = MORE.replace('.pt")', '.pt", weights_only=False)')
    body = f"{opened}return {{'w': {W} + more['t'] * more['options'].alpha}}"
    verdict = held(bench, body, lambda folder, value: torch.save(value, folder / "more.pt"), stored, stored)
    assert "weights_only=True" in verdict.reason


def write_ordered(folder: Path, order: str) -> None:
    """Three tensors, in this order in the file, which load_file gives them in."""
    spans = {key: [32 * place, 32 * place + 32] for place, key in enumerate(order)}
    text = json.dumps({key: {"dtype": "F32", "shape": [8], "data_offsets": span} for key, span in spans.items()}).encode()
    text += b" " * (-len(text) % 16 + 8)
    data = b"".join(torch.full((8,), len(folder.name) + place + 0.5).numpy().tobytes() for place in range(3))
    (folder / "order.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_tensors_lie_in_a_safetensors_file_in_the_traced_order(bench: Bench) -> None:
    loop = "for tensor in load_file(f\"adapters/{event['adapter']}/order.safetensors\").values():\n    w = w * tensor + 1"
    verdict = held(bench, f"w = {W}\n{loop}\nreturn {{'w': w}}", write_ordered, "xyz", "xyz", "xyz", "zxy")
    assert (verdict.outcome, verdict.served, len(verdict.refusals)) == ("script", 1, 1), verdict
    assert "the order of its tensors" in verdict.refusals[0]


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_a_file_that_no_loader_of_tensors_read_is_as_traced_in_all_of_it(bench: Bench, suffix: str) -> None:
    body = (
        f"pad = np.memmap(Path('adapters', event['adapter'], 'pad.{suffix}'), dtype='uint8', mode='r').size\n"
        f"return {{'w': {W} * pad * event['scale']}}"
    )
    files = (b"p" * 8, b"p" * 8, b"p" * 8, b"p" * 16)
    verdict = held(bench, body, lambda folder, data: (folder / f"pad.{suffix}").write_bytes(data), *files, **TWO)
    assert (verdict.outcome, verdict.served, len(verdict.refusals)) == ("script", 1, 1), verdict
    assert "is none of the traced ones" in verdict.refusals[0]
