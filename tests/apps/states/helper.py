"""A second module of the project: classes that the state holds, a hook, and a global that init sets."""

import dataclasses
import enum
from typing import Any, NamedTuple

import torch

TABLE: dict[str, Any] | None = None


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Pair(NamedTuple):
    left: torch.Tensor
    right: Any


@dataclasses.dataclass
class Settings:
    name: str
    colour: Colour
    mask: torch.Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    weight: torch.Tensor
    size: int


class Tagged(torch.Tensor):
    tag: str


def doubled(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(value * 2 for value in inputs)


def shifted(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(value + 1 for value in inputs)
