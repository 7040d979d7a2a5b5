"""What of a state counts as computed, and so is pinned to the CPU's capability: more than reads, views, copies and fills."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from tidalctl.function.init_mark import Init
from tidalctl.lineage.loaders import LoaderWatch
from tidalctl.lineage.tape import Tape
from tidalctl.tracer.init.call import record_init

State = dict[str, Any]


def net(folder: Path, **options: Any) -> State:
    with torch.device("meta" if options else "cpu"):
        made = nn.Linear(4, 4)
    made.load_state_dict(load_file(folder / "w.safetensors"), **options)
    return {"net": made}


def slices(folder: Path) -> State:
    with safe_open(folder / "w.safetensors", "pt") as file:
        return {"part": file.get_slice("weight")[:2], "view": file.get_tensor("bias")[1:]}


def joined(folder: Path) -> State:
    made = torch.empty(5, 4)
    read = load_file(folder / "w.safetensors")
    made[:4], made[4] = read["weight"], read["bias"]
    return {"made": made, "cat": torch.cat([made, made])}


def buffers(folder: Path) -> State:
    positions = torch.arange(8).expand(1, -1) + 2
    return {"positions": positions, "mask": torch.full((3, 3), float("-inf")).triu(1), "causal": torch.ones(3, 3).bool().tril()}


def number(folder: Path) -> State:
    return {"first": float(torch.load(folder / "w.pt")["weight"][0, 0])}


NOT_COMPUTED: dict[str, Callable[[Path], State]] = {
    "load_file": lambda folder: load_file(folder / "w.safetensors"),
    "torch.load": lambda folder: torch.load(folder / "w.pt"),
    "torch.load, mapped": lambda folder: torch.load(folder / "w.pt", mmap=True),
    "a module that takes the file's tensors": lambda folder: net(folder, assign=True),
    "copied over random weights": net,
    "slices": slices,
    "put together": joined,
    "fills and whole numbers": lambda folder: {name: value for name, value in buffers(folder).items() if name != "causal"},
    "a number of the file": number,
}


def merged(folder: Path) -> State:
    made = load_file(folder / "w.safetensors")
    made["weight"] += made["bias"]
    return made


def partly(folder: Path) -> State:
    made = torch.linspace(0, 1, 8)
    made[:4] = 2.0
    return {"made": made}


def by_numpy(folder: Path) -> State:
    made = load_file(folder / "w.safetensors")
    numpy.exp(made["weight"].numpy(), out=made["weight"].numpy())
    return made


COMPUTED: dict[str, tuple[Callable[[Path], State], str]] = {
    "merged": (merged, "computed by aten.add_"),
    "converted": (lambda folder: {"half": torch.load(folder / "w.pt")["weight"].half()}, "computed by aten._to_copy"),
    "a conversion to another dtype": (buffers, "computed by aten._to_copy"),
    "seeded": (lambda folder: {"made": torch.empty(3).normal_(generator=torch.Generator().manual_seed(0))}, "aten.normal_"),
    "whole numbers at random": (
        lambda folder: {"made": torch.randint(9, (3,), generator=torch.Generator().manual_seed(0))},
        "computed by aten.randint",
    ),
    "a copy of what was computed": (lambda folder: {"made": torch.cat([torch.ones(2).exp(), torch.ones(2)])}, "aten.exp"),
    "overwritten in part": (partly, "computed by aten.linspace"),
    "by NumPy": (by_numpy, "computed by host.numpy"),
    "of unknown origin": (lambda folder: {"made": torch.tensor([1.0, 2.0])}, "of unknown origin"),
    "a number of what was computed": (lambda folder: {"made": float(torch.ones(2).exp().sum())}, "computed by aten.exp"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    weights = {"weight": torch.randn(4, 4), "bias": torch.randn(4)}
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pt")
    return tmp_path


def computed(load: Callable[[Path], State], folder: Path) -> set[str]:
    """How the state's weights were computed, and the numbers that init took out of tensors."""
    tape = Tape(0, str(folder))
    with LoaderWatch(lambda file: None) as watch:
        watch.tape = tape
        made = record_init(Init(lambda event: load(folder), False), ({},), {}, {}, tape)
    found = [weight.computed for weight, _ in made.weights(0)]
    return {how for how in (*found, made.call.computed_read) if how is not None}


@pytest.mark.parametrize("name", NOT_COMPUTED)
def test_reads_views_copies_fills_and_whole_numbers_are_not_computed(name: str, folder: Path) -> None:
    assert computed(NOT_COMPUTED[name], folder) == set()


@pytest.mark.parametrize("name", COMPUTED)
def test_all_else_is_computed(name: str, folder: Path) -> None:
    load, how = COMPUTED[name]
    assert any(how in told for told in computed(load, folder))
