"""Weights that lie behind `__slots__`, in wrapper tensors or behind bound methods are looked into, as those in attributes are."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Chain

from tidalctl.artifacts.state.storages import modules_of, storage_names, tensors_of

HIDDEN = """
import functools

import tidalctl
import torch


class Base:
    __slots__ = ("net",)


class State(Base):
    __slots__ = ("__scale", "unset")

    def __init__(self):
        torch.manual_seed(1)
        self.net, self.__scale = torch.nn.Linear(4, 3), torch.full((3,), 2.0)

    def scaled(self, x):
        return self.net(x) * self.__scale


class Packed(torch.Tensor):
    @staticmethod
    def __new__(cls, codes):
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32)

    def __init__(self, codes):
        self.codes = codes

    @classmethod
    def __torch_dispatch__(cls, func, types, args, kwargs=None):
        return func(*[a.codes.float() if isinstance(a, Packed) else a for a in args], **(kwargs or {}))


@tidalctl.init(static=True)
def load():
    packed = Packed(torch.arange(16, dtype=torch.int8).view(4, 4))
    return State(), {"w": packed, "also": packed}


def handler(event, context):
    state, packed = load()
    with torch.no_grad():
        rows = torch.ones(4) * event["x"] @ packed["w"]
        return [state.scaled(rows).tolist(), type(packed["w"]).__name__, packed["w"] is packed["also"]]
"""


def test_weights_in_slots_and_in_wrapper_tensors_have_names_and_first_uses(chain: Callable[..., Chain]) -> None:
    made = chain(HIDDEN, {"x": 1.5})
    assert made.manifest["strategy"] == "snapshot" and "never used" not in made.said()
    weights = {weight["name"]: weight["operator"] for weight in made.manifest["weights"] if weight["name"] != ".torch.rng"}
    assert weights.keys() == {"0.net.weight", "0.net.bias", "0._State__scale", "1.w.codes"}  # as Python names a private slot
    assert all(weights.values())
    report = made.run({"x": 2.0})
    assert (report["strategy"], report["output"]) == ("snapshot", made.plain({"x": 2.0}))


class Slotted:
    __slots__ = ("__dict__", "inner")

    def method(self) -> None: ...


def slotted(inner: Any) -> Slotted:
    made = Slotted()
    made.inner = inner
    return made


@pytest.mark.parametrize(
    ("state", "path"),
    [
        (lambda w: slotted(w), "inner"),
        (lambda w: [slotted({"a": w})], "0.inner.a"),
        (lambda w: functools.partial(print, w, key=1), "args.0"),
        (lambda w: slotted(w).method, "__self__.inner"),
        (lambda w: torch.nn.Parameter(w), "state"),
    ],
)
def test_a_weight_is_found_wherever_attributes_lead_to_it(state: Callable[[torch.Tensor], Any], path: str) -> None:
    weight = torch.ones(3)
    assert [names for names, _, _ in storage_names(state(weight)).values()] == [[path]]


def test_attributes_of_a_tensor_are_looked_into_and_circles_end() -> None:
    weight, other = torch.nn.Parameter(torch.ones(3)), torch.ones(2)
    weight.quantized = {"scale": other, "of": weight}  # type: ignore[attr-defined]
    assert [path for path, _ in tensors_of(weight)] == ["state", "quantized.scale", "quantized.of"]


def test_modules_in_slots_are_found_by_what_waits_for_them() -> None:
    assert [path for path, _ in modules_of(slotted(torch.nn.Linear(2, 2)))] == ["inner"]
