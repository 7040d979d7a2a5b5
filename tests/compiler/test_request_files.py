"""What init reads of a request's files besides their tensors, and where no opening tells of it, is as traced or not answered."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from random_bench import Bench
from random_world import make_world
from test_random_programs import W, adapters, program


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    world = make_world(tmp_path_factory.mktemp("world"))
    with Bench(world) as made:
        yield made


def torch_files(bench: Bench, **stored: Any) -> None:
    for name, value in stored.items():
        torch.save(value, Path(bench.world, "adapters", name, "more.pt"))


MORE = "more = torch.load('adapters/' + event['adapter'] + '/more.pt')\n"


@pytest.mark.parametrize(
    ("use", "spoil"),
    [
        ("more['alpha']", {"alpha": 3}),
        ("more['alpha']", {"alpha": 2.0}),
        ("len(more)", {"another": ""}),
        ("len(more['names'])", {"names": ["q"]}),
        ("len(str(more['by'][3]))", {"by": {3: "longer"}}),
        ("1 + (list(more)[0] == 't')", {"alpha": None}),
        ("1 + more['t'].requires_grad", {"t": torch.ones(4, 8, requires_grad=True)}),
        ("1 + more['t'].is_contiguous()", {"t": torch.ones(8, 4).t()}),
    ],
)
def test_what_lies_beside_the_tensors_of_a_torch_file_is_as_traced_or_the_start_steps_down(
    bench: Bench, use: str, spoil: dict[str, Any]
) -> None:
    """Both traced files hold the same numbers, texts and keys, and so does one that no trace saw."""
    alike = {"alpha": 2, "names": ["q", "v"], "by": {3: "x"}, "t": torch.ones(4, 8)}
    other = {key: value for key, value in (alike | spoil).items() if value is not None}
    torch_files(bench, a=alike, b=alike | {"t": torch.ones(4, 8) * 3}, c=alike | {"t": -torch.ones(4, 8)}, d=other)
    verdict = bench.check(
        program(f"{MORE}return {{'w': {W} + more['t'].detach() * ({use})}}", adapters("a", "b"), adapters("c", "d"))
    )
    assert verdict.outcome == "sliced", verdict.reason
    assert verdict.served == 1 and len(verdict.refusals) == 1
    assert "besides its tensors is none of the traced ones" in verdict.refusals[0]


def test_tensors_that_share_memory_in_a_torch_file_share_it_as_traced_or_are_not_answered(bench: Bench) -> None:
    def pair(number: float, shared: bool) -> dict[str, torch.Tensor]:
        one = torch.full((4, 8), number)
        return {"t": one, "u": one if shared else one.clone()}

    torch_files(bench, a=pair(1, True), b=pair(2, True), c=pair(3, True), d=pair(4, False))
    body = f"{MORE}more['t'].add_(1)\nreturn {{'w': {W} + more['u']}}"
    verdict = bench.check(program(body, adapters("a", "b"), adapters("c", "d")))
    assert verdict.outcome == "fallback" or (verdict.served, len(verdict.refusals)) == (1, 1)


def test_a_torch_file_that_only_full_unpickling_reads_makes_no_script(bench: Bench) -> None:
    stored = {"t": torch.ones(4, 8), "options": argparse.Namespace(alpha=2)}
    torch_files(bench, a=stored, b=stored)
    opened = MORE.replace(".pt')", ".pt', weights_only=False)")
    body = f"{opened}return {{'w': {W} + more['t'] * more['options'].alpha}}"
    verdict = bench.check(program(body, adapters("a", "b"), adapters("c")))
    assert "weights_only=True" in verdict.reason


def test_tensors_lie_in_a_safetensors_file_in_the_traced_order_or_the_start_steps_down(bench: Bench) -> None:
    """load_file gives them in the order in which they lie."""
    for number, (name, order) in enumerate((("a", "xyz"), ("b", "xyz"), ("c", "xyz"), ("d", "zxy"))):
        spans = {key: [32 * place, 32 * place + 32] for place, key in enumerate(order)}
        header = {key: {"dtype": "F32", "shape": [8], "data_offsets": span} for key, span in spans.items()}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 16 + 8)
        data = b"".join(torch.full((8,), number + place + 0.5).numpy().tobytes() for place in range(3))
        Path(bench.world, "adapters", name, "order.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    loop = "for tensor in load_file(f\"adapters/{event['adapter']}/order.safetensors\").values():\n    w = w * tensor + 1"
    verdict = bench.check(program(f"w = {W}\n{loop}\nreturn {{'w': w}}", adapters("a", "b"), adapters("c", "d")))
    assert (verdict.outcome, verdict.served, verdict.refused) == ("sliced", 1, 1), verdict
    assert "the order of its tensors" in verdict.refusals[0]


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth", "safetensors"])
def test_a_file_that_no_loader_of_tensors_read_is_as_traced_in_all_of_it_whatever_its_name(bench: Bench, suffix: str) -> None:
    for name, size in (("a", 8), ("b", 8), ("c", 8), ("d", 16)):
        Path(bench.world, "adapters", name, f"pad.{suffix}").write_bytes(b"p" * size)
    body = (
        f"pad = np.memmap(Path('adapters', event['adapter'], 'pad.{suffix}'), dtype='uint8', mode='r').size\n"
        f"return {{'w': {W} * pad * event['scale']}}"
    )
    verdict = bench.check(program(body, adapters("a", "b", scale=[0.5, 1.7]), adapters("c", "d", scale=0.1)))
    assert (verdict.outcome, verdict.served, len(verdict.refusals)) == ("sliced", 1, 1), verdict
    assert "is none of the traced ones" in verdict.refusals[0]
