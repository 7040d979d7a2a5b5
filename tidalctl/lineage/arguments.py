"""An operator's arguments as JSON, in the encoding of artifacts/tape.py."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tidalctl.artifacts.state.storages import digest_of, storage_of

Number = Callable[[torch.Tensor], int]


def encode(value: Any, number: Number) -> Any:
    """`number` gives the number of a tensor's value."""
    if isinstance(value, torch.Tensor):
        return {"value": number(value)} if storage_of(value) is not None else {"meta": described(value)}
    if isinstance(value, list | tuple):
        return [encode(item, number) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    for name, kind in _TORCH.items():
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    if isinstance(value, torch.Generator):
        return {"generator": digest_of(value.get_state().untyped_storage())}
    return {"opaque": type(value).__name__}


_TORCH: dict[str, Any] = {
    "dtype": torch.dtype,
    "device": torch.device,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}


def described(tensor: torch.Tensor) -> str:
    """A tensor that has no storage, by what it looks like."""
    if tensor.is_nested:
        return f"{str(tensor.dtype).removeprefix('torch.')} nested@{tensor.device}"  # of no one shape
    strides = tuple(tensor.stride()) if tensor.layout is torch.strided else tensor.layout
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}/{strides}@{tensor.device}"


def decode(value: Any, tensor: Callable[[int], torch.Tensor]) -> Any:
    """What `encode` made, back again. Raises ValueError for what has no way back (an opaque argument, a generator)."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [decode(item, tensor) for item in value]
    if not isinstance(value, Mapping):
        return value
    ((kind, inner),) = value.items()
    if kind == "value":
        return tensor(inner)
    if kind == "float":
        return float(inner)
    if kind == "complex":
        return complex(*inner)
    if kind == "device":
        return torch.device(inner)
    if kind in _TORCH:
        return getattr(torch, inner)
    raise ValueError(f"an argument that can't be written down ({kind}: {inner})")


def show(value: Any, content: Callable[[int], Any]) -> Any:
    """An encoded argument with each value number replaced by what `content` says of it."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [show(item, content) for item in value]
    if isinstance(value, Mapping) and "value" in value:
        return {"value": content(value["value"])}
    return value


def geometry(storage: int, tensor: torch.Tensor) -> tuple[int, str, tuple[int, ...], tuple[int, ...], int]:
    """What makes a tensor one value: its storage, dtype, shape, strides and offset."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return storage, dtype, tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset())
