"""What a replayed init computes from what it reads is what the plain one computes, and what the template holds is not computed again:
conversions and chains, and tensors that share memory, are written to, or carry flags."""

from pathlib import Path
from typing import Any

import pytest
import torch
from replay_cases import OTHER, shown, spoil, trace, write_model
from safetensors import safe_open
from safetensors.torch import load_file

from tidalctl.artifacts.storages import storage_of, tensors_of


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path)


def test_what_is_converted_is_answered_without_being_read_or_converted(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        return {n: t.to(torch.bfloat16) for n, t in load_file(model).items()}, torch.full((2,), event["scale"]) + 1

    traced = trace(load, model.parent).matches()
    plain = shown(load(OTHER))
    spoil(model)
    assert shown(traced.run()) == plain
    assert traced.last.executed == 2  # full and add, of what depends on the event
    assert traced.last.answered == len(traced.stored) == 4
    assert all(":aten._to_copy" in name for name in traced.stored)


def test_what_the_event_says_in_an_argument_is_not_kept(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        weight = load_file(model)["first.weight"]
        return weight * event["scale"], weight * 0.5, weight.to(getattr(torch, event["dtype"]))

    events = [{"scale": 2.0, "dtype": "bfloat16"}, {"scale": 3.0, "dtype": "float64"}]
    traced = trace(load, model.parent, *events)
    assert [name.partition(":")[2] for name in traced.stored] == [
        "",
        "aten.mul.Tensor",
        "aten._to_copy.default",
        "aten._to_copy.default.1",
    ]
    assert traced.matches({"scale": 2.0, "dtype": "bfloat16"}).last.executed == 1
    assert traced.matches({"scale": 4.0, "dtype": "float16"}).last.executed == 2


def test_of_a_chain_the_last_tensor_is_answered_and_the_others_are_computed_from_the_template(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        with safe_open(model, "pt") as file:
            weight = file.get_tensor("first.weight")
        weight = weight.to(torch.float64).T[:8].contiguous() / torch.arange(1.0, 17.0)
        return {"weight": weight, "own": weight + event["scale"]}

    traced = trace(load, model.parent).matches()
    plain = shown(load(OTHER)["own"])
    assert traced.stored == ["model.safetensors#first.weight", "model.safetensors#first.weight:aten.div.Tensor"]
    spoil(model)
    assert shown(traced.run()["own"]) == plain
    assert (traced.last.answered, traced.last.executed) == (2, 6)  # to, clone, arange, add, and two that make views


def test_writes_reach_neither_the_template_nor_another_state(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        tensors = load_file(model)
        half = tensors["second.weight"].to(torch.float16)
        if event["scale"] > 4:
            tensors["first.weight"].add_(event["scale"])
            half[3] = event["scale"]
        return tensors, half, tensors["first.weight"].to(torch.float16)

    traced = trace(load, model.parent).matches().matches()
    one, other = traced.run(), traced.run({"scale": 2.0})
    one[0]["third.weight"].zero_()
    one[1].zero_()
    assert shown(other) == shown(load({"scale": 2.0}))
    assert not any(storage_of(tensor).nbytes() and tensor.abs().sum() == 0 for _, tensor in tensors_of(other))


def test_reads_share_memory_where_the_plain_ones_do(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        with safe_open(model, "pt") as file, safe_open(model, "pt") as again:
            one, two, three = file.get_tensor("numbers"), file.get_tensor("numbers"), again.get_tensor("numbers")
            part = file.get_slice("numbers")[2:5]
            one[3] = int(event["scale"])
            return one, two, three, part, file.get_tensor("numbers"), two.to(torch.float16), three.to(torch.float16)

    traced = trace(load, model.parent).matches()
    assert traced.run({"scale": 2.0})[5].tolist() == [0, 1, 2, 2, 4, 5]


def test_tied_weights_and_views_of_reads_stay_tied(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        tensors = load_file(model)
        one, two = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)
        one.weight = two.weight = torch.nn.Parameter(tensors["first.weight"])
        buffer = torch.empty(16, 16)
        buffer.copy_(tensors["third.weight"])
        for module in (one, two):
            torch.nn.init.constant_(module.bias, event["scale"])
        return one, two, tensors["second.weight"].T, tensors["second.weight"][3:5], buffer, buffer.to(torch.float64)

    traced = trace(load, model.parent).matches()
    state = traced.run()
    assert state[0].weight is state[1].weight
    assert traced.last.answered == 4  # three reads, and the conversion of a copy of one


def test_a_tensor_that_records_gradients_is_computed(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        weight = torch.nn.Parameter(load_file(model)["first.weight"])
        with torch.no_grad():
            quiet = weight.to(torch.float64)
        return weight, weight.to(torch.float64), quiet, event["scale"]

    traced = trace(load, model.parent).matches()
    state = traced.run()
    assert state[1].grad_fn is not None and state[2].grad_fn is None
    assert (traced.last.answered, traced.last.executed) == (2, 1)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_flags_are_those_of_the_mode(model: Path, mode: Any) -> None:
    def load(event: dict[str, Any]) -> Any:
        with mode():
            tensors = load_file(model)
            return tensors, tensors["first.weight"].to(torch.float64), event["scale"]

    traced = trace(load, model.parent).matches()
    # of `to` under inference_mode, which comes to the dispatcher as a view that may be a copy, no lineage is known
    assert traced.last.answered == (4 if mode is torch.inference_mode else 5)


def test_what_the_host_may_have_written_to_is_computed_again(model: Path) -> None:
    def load(event: dict[str, Any]) -> Any:
        tensors = load_file(model)
        if event["scale"] > 4:
            tensors["first.weight"].numpy()[0, 0] = event["scale"]
        tensors["second.weight"].numpy()[0, 0] = event["scale"]
        return tensors, [tensor.to(torch.float16) for tensor in tensors.values()]

    trace(load, model.parent).matches().matches({"scale": 2.0})
