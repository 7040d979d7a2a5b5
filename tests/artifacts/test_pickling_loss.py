"""What pickle drops in silence is refused, with the way to it; what loses nothing is not."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from tidalctl.artifacts.state.skeleton import SkeletonPickler, why_not_picklable


def hooked(name: str) -> torch.nn.Module:
    module = torch.nn.Linear(2, 2)
    getattr(module.bias, name)(print)
    return module


def inferred() -> torch.Tensor:
    with torch.inference_mode():
        return torch.ones(2)


def thinned() -> set[int]:
    numbers = set(range(1000))
    for number in range(1000):
        if number not in (16, 9, 100, 33, 7):
            numbers.discard(number)
    return numbers


def special() -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    found = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    found.encode_special_tokens = True
    return found


def mapped(folder: Path, mode: str) -> Any:
    (folder / "numbers").write_bytes(bytes(32))
    return numpy.memmap(folder / "numbers", numpy.float32, mode)


@pytest.mark.parametrize(
    ("state", "path", "what"),
    [
        (lambda _: {"m": hooked("register_hook")}, 'state["m"].bias', "hooks would be lost"),
        (lambda _: [hooked("register_post_accumulate_grad_hook")], "state[0].bias", "hooks would be lost"),
        (lambda _: {"bias": inferred()}, 'state["bias"]', "an inference tensor"),
        (lambda _: {"nest": torch.nested.nested_tensor([torch.ones(2)])}, 'state["nest"]', "a nested tensor"),
        (lambda _: {"free": thinned()}, 'state["free"]', "in another order"),
        (lambda _: {"free": frozenset(thinned())}, 'state["free"]', "in another order"),
        (lambda _: {"tok": special()}, 'state["tok"]', "encode_special_tokens"),
        (lambda folder: {"mm": mapped(folder, "r+")}, 'state["mm"]', "writes to a file"),
        (lambda folder: {"mm": numpy.asarray(mapped(folder, "r+"))[2:]}, 'state["mm"]', "writes to a file"),
    ],
)  # fmt: skip
def test_what_would_come_back_with_less_is_refused(state: Callable[[Path], Any], path: str, what: str, tmp_path: Path) -> None:
    made = state(tmp_path)
    assert why_not_picklable(made).startswith(f"{path}: ")
    assert what in why_not_picklable(made)
    with pytest.raises(Exception, match=what.replace("(", r"\(").replace(")", r"\)")):
        SkeletonPickler(io.BytesIO(), {}, whole=True).dump(made)
    if "file" not in what:
        SkeletonPickler(io.BytesIO(), {}).dump(made)  # to compare two of them, which may be alike in what is lost


def with_hook_removed() -> torch.nn.Parameter:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.register_hook(print).remove()
    return weight


def words() -> set[str]:
    found = {str(number) for number in range(1000)}
    found.difference_update(str(number) for number in range(990))
    return found


@pytest.mark.parametrize(
    "state",
    [
        lambda _: with_hook_removed(),
        lambda _: torch.optim.SGD(torch.nn.Linear(2, 2).parameters()),
        lambda _: torch.nn.Linear(2, 2),
        lambda _: [words(), set(range(2500)), frozenset(range(9)), {(1, 2.5), True}],
        lambda folder: mapped(folder, "r"),
        lambda folder: mapped(folder, "c") + 1,
    ],
)  # fmt: skip
def test_what_loses_nothing_is_not(state: Callable[[Path], Any], tmp_path: Path) -> None:
    SkeletonPickler(io.BytesIO(), {}, whole=True).dump(state(tmp_path))


def test_an_inference_tensor_is_whole_where_its_caller_is_in_inference_mode() -> None:
    with torch.inference_mode():
        SkeletonPickler(io.BytesIO(), {}, whole=True).dump(torch.ones(2))
