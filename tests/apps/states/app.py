"""A state with one of everything, and a handler that tells all that a program could notice about it, then writes to it."""

import collections
import ctypes
import dataclasses
import datetime
import decimal
import enum
import functools
import hashlib
import operator
import os
import random
import re
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

import helper
import numpy
import torch
from torch import nn

import tidalctl

MODE: str | None = None
ATOMS = (
    str, bytes, bytearray, int, float, complex, bool, type(None), type, range, slice, enum.Enum, re.Pattern, decimal.Decimal,
    PurePosixPath, datetime.datetime, torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format,
)  # fmt: skip


class Net(nn.Module):
    def __init__(self, tied: nn.Parameter) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.third = tied
        self.register_buffer("kept", torch.arange(6.0))
        self.register_buffer("lost", torch.arange(6.0) * 2, persistent=False)
        self.register_buffer("none", None)
        self.norm = nn.BatchNorm1d(6)
        self.first.register_forward_pre_hook(helper.doubled)
        self.options = {"nested": [torch.full((2,), 0.5)]}
        self.act = functools.partial(torch.add, alpha=2)


@tidalctl.init
def load(event: dict[str, Any]) -> dict[str, Any]:
    global MODE
    torch.manual_seed(7)
    random.seed(7)
    numpy.random.seed(7)
    MODE = "loaded"
    helper.TABLE = {"squares": torch.arange(5) ** 2}
    os.environ["STATES_APP"] = "set by init"
    tied = nn.Parameter(torch.randn(6, 6))
    one, two = Net(tied), Net(tied)
    two.eval().requires_grad_(False)
    tied.requires_grad_(True)
    base = torch.arange(48.0).reshape(6, 8)
    waves = torch.randn(4, 3, dtype=torch.complex64)
    tagged = torch.arange(4.0).as_subclass(helper.Tagged)
    tagged.tag = "kept"
    shared = [1, 2, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.linspace(-1, 1, 8), 0.1, 3, torch.qint8)
    state: dict[str, Any] = {
        "one": one,
        "two": two,
        "base": base,
        "transposed": base.t(),
        "row": base[2],
        "window": base[1:5:2, 2:7:3],
        "expanded": torch.tensor([1.5]).expand(3, 4),
        "strided": torch.as_strided(torch.arange(20), (3, 2), (5, 2), 1),
        "int8": torch.tensor([-128, 0, 127], dtype=torch.int8),
        "bool": torch.tensor([True, False, True]),
        "bf16": torch.randn(5).bfloat16(),
        "half": torch.randn(5).half(),
        "float8": torch.randn(5).to(torch.float8_e4m3fn),
        "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
        "special": torch.tensor([0.0, -0.0, float("nan"), float("inf")], dtype=torch.float64),
        "bytes as floats": torch.arange(8, dtype=torch.int32).view(torch.float32),
        "waves": waves,
        "conjugate": waves.conj(),
        "imaginary": waves.conj().imag,
        "real": torch.view_as_real(waves),
        "complex128": torch.randn(3, dtype=torch.complex128),
        "empty": torch.empty(0),
        "empty shape": torch.empty(3, 0, 2, dtype=torch.int16),
        "empty slice": base[0:0],
        "scalar": torch.tensor(3.25),
        "leaf": torch.ones(2, requires_grad=True),
        "meta": torch.empty(3, 4, device="meta"),
        "channels last": torch.randn(1, 3, 4, 4).to(memory_format=torch.channels_last),
        "tagged": tagged,
        "sparse": torch.tensor([[0.0, 2.0], [3.0, 0.0]]).to_sparse(),
        "csr": torch.tensor([[0.0, 2.0], [3.0, 0.0]]).to_sparse_csr(),
        "quantised": quantised,
        "settings": helper.Settings("a name", helper.Colour.BLUE, torch.tensor([False, True])),
        "slotted": helper.Slotted(torch.randn(3), 3),
        "pair": helper.Pair(torch.ones(1), shared),
        "list": shared,
        "tuple": (1, "two", 3.0, None, b"five"),
        "set": {"alpha", "beta", "gamma", "delta", "epsilon"},
        "frozen": frozenset(range(9)),
        "order": collections.OrderedDict(b=1, a=2),
        "default": collections.defaultdict(list, {"x": [1]}),
        "deque": collections.deque([1, 2], maxlen=5),
        "counter": collections.Counter("hello"),
        "path": Path("some/where"),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "size": torch.Size([1, 2]),
        "format": torch.channels_last,
        "layout": torch.sparse_coo,
        "colour": helper.Colour.RED,
        "class": helper.Settings,
        "function": helper.doubled,
        "builtin": len,
        "module": operator,
        "regex": re.compile("a+b", re.IGNORECASE),
        "range": range(1, 9, 3),
        "slice": slice(1, None, 2),
        "when": datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC),
        "decimal": decimal.Decimal("1.10"),
        "array": numpy.arange(6, dtype=numpy.int16).reshape(2, 3).T,
        "tensor keys": {"k": torch.zeros(2), 3: torch.ones(2)},
    }
    state["itself"] = state
    torch.set_default_dtype(torch.float64)
    return state


class Teller:
    """Numbers objects and storages as it meets them, so that what is shared shows."""

    def __init__(self) -> None:
        self.objects: dict[int, int] = {}
        self.storages: dict[int, int] = {}
        self.alive: list[Any] = []

    def tell(self, value: Any) -> Any:
        if isinstance(value, ATOMS):
            return f"{type(value).__name__} {value!r}"
        if id(value) in self.objects:
            return f"object {self.objects[id(value)]} again"
        self.objects[id(value)] = len(self.objects)
        self.alive.append(value)
        return [f"{type(value).__module__}.{type(value).__qualname__}", self.parts(value)]

    def parts(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if isinstance(value, numpy.ndarray):
            return [str(value.dtype), value.shape, value.strides, digest(value.tobytes())]
        if isinstance(value, dict):
            extra = [repr(value.default_factory)] if isinstance(value, collections.defaultdict) else []
            return [[self.tell(key), self.tell(item)] for key, item in value.items()] + extra
        if isinstance(value, set | frozenset):
            return sorted(self.tell(item) for item in value)
        if isinstance(value, list | tuple | collections.deque):
            return [self.tell(item) for item in value]
        if isinstance(value, functools.partial):
            return [self.tell(value.func), self.tell(value.args), self.tell(value.keywords)]
        if dataclasses.is_dataclass(value):
            return [[field.name, self.tell(getattr(value, field.name))] for field in dataclasses.fields(value)]
        if isinstance(value, nn.Module):  # hooks by their values: the keys are numbers that count in every process
            return [
                [name, self.tell(list(part.values()) if name.endswith("_hooks") else part)]
                for name, part in sorted(vars(value).items())
            ]
        return getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or repr(value)

    def tensor(self, t: torch.Tensor) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "dtype": str(t.dtype),
            "shape": list(t.shape),
            "layout": str(t.layout),
            "device": str(t.device),
            "requires_grad": t.requires_grad,
            "is_leaf": t.is_leaf,
            "inference": t.is_inference(),
            "attributes": [[name, repr(value)] for name, value in sorted(vars(t).items())],
        }
        if t.layout is torch.sparse_coo:
            return facts | {"coalesced": t.is_coalesced(), "of": [self.tensor(t.indices()), self.tensor(t.values())]}
        if t.layout is torch.sparse_csr:
            return facts | {"of": [self.tensor(part) for part in (t.crow_indices(), t.col_indices(), t.values())]}
        if t.device.type == "meta":
            return facts | {"strides": t.stride()}
        if t.is_quantized:
            facts |= {"quantised": [str(t.qscheme()), t.q_scale(), t.q_zero_point(), t.int_repr().tolist()]}
        storage = t.untyped_storage()
        self.alive.append(storage)
        return facts | {
            "strides": list(t.stride()),
            "offset": t.storage_offset(),
            "bits": [t.is_conj(), t.is_neg()],
            "storage": self.storages.setdefault(storage._cdata, len(self.storages)),
            "bytes": [storage.nbytes(), digest(ctypes.string_at(storage.data_ptr(), storage.nbytes()))],
        }


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    state = load(event)
    told = {name: Teller().tell(value) for name, value in state.items() if name not in ("itself", "module")}
    told |= {"all": digest(repr(Teller().tell(state)).encode()), "itself": state["itself"] is state}
    told |= {
        "MODE": MODE,
        "TABLE": Teller().tell(helper.TABLE),
        "environ": os.environ.get("STATES_APP"),
        "default dtype": str(torch.zeros(1).dtype),
        "random": [torch.rand(2).tolist(), random.random(), float(numpy.random.rand())],
    }
    state["one"].first.register_forward_pre_hook(helper.shifted)
    with torch.no_grad():
        state["row"].add_(100 * event["n"])
        state["one"].second.weight.mul_(2)
        state["waves"].mul_(1j)
        state["tensor keys"]["k"] += 1
        helper.TABLE["squares"] += 1
        told["after"] = [
            state["base"].sum().item(),
            state["transposed"][3].tolist(),
            state["one"].first.weight.sum().item(),
            state["one"].third is state["two"].third,
            str(state["conjugate"][0, 0].item()),
            state["tensor keys"]["k"].tolist(),
            helper.TABLE["squares"].tolist(),
            state["one"].first(torch.ones(1, 6, dtype=torch.float32)).sum().item(),
        ]
    state["pair"].right.append(4)
    told["list after"] = state["list"]
    torch.set_default_dtype(torch.float32)  # as the next event's init is to find it
    return told
