"""Weights that lie behind `__slots__`, in wrapper tensors or behind bound methods are looked into, as those in attributes are."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Chain
from test_causes_of_traces import recorded

from tidalctl.artifacts.state.storages import modules_of, storage_names, tensors_of
from tidalctl.tracer.handler.first_uses import AccessMode, AccessRecord, ModuleStack

SLOTS = """
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


@tidalctl.init(static=True)
def load():
    return State()


def handler(event, context):
    with torch.no_grad():
        return load().scaled(torch.ones(4) * event["x"]).tolist()
"""
PACKED = """
import tidalctl
import torch


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
def load(event):
    packed = Packed(torch.arange(16, dtype=torch.int8).view(4, 4))
    return {"w": packed, "also": packed}


def handler(event, context):
    packed = load(event)
    rows = torch.ones(4) * event["x"] @ packed["w"]
    return [rows.tolist(), type(packed["w"]).__name__, packed["w"] is packed["also"]]
"""


def test_weights_in_slots_have_names_and_first_uses(chain: Callable[..., Chain]) -> None:
    made = chain(SLOTS, {"x": 1.5})
    assert made.manifest["strategy"] == "snapshot" and "never used" not in made.said()
    weights = {weight["name"]: weight["operator"] for weight in made.manifest["weights"] if weight["name"] != ".torch.rng"}
    assert weights.keys() == {"net.weight", "net.bias", "_State__scale"}  # as Python names a private slot
    assert all(weights.values())


def test_the_tensors_in_a_wrapper_are_weights_with_lineage_and_first_uses() -> None:
    module: dict[str, Any] = {"__name__": __name__}
    exec(PACKED, module)
    init = recorded(module["load"], 0, {})
    assert [(weight.names, weight.operators) for weight in init.weights] == [(("w.codes",), ("aten.arange",))]
    packed = module["load"]({})["w"]
    record = AccessRecord(0, {packed.codes.untyped_storage()._cdata: 0})
    with AccessMode(record, ModuleStack({})):
        torch.ones(4) @ packed
    assert record.first_uses[0].operator == "aten.to"


@pytest.mark.slow  # torch imports sympy for such a tensor, in each process
def test_a_wrapper_comes_back_as_it_was(chain: Callable[..., Chain]) -> None:
    made = chain(PACKED, {"x": 1.5})
    assert made.manifest["strategy"] == "snapshot" and "never used" not in made.said()
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
