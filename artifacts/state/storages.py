"""The tensors, storages and modules of a state: the paths that lead to them, in the order in which a reader would list them."""

import ctypes
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch

# a path, from its end: (the path before, the last name), so that a long chain of objects costs no long strings
_Link = tuple["_Link", str] | None

_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, torch.dtype, torch.device, torch.Size)


def tensors_of(state: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (path, tensor) for every tensor that attributes, items and fields of `state` lead to, depth first.

    A tensor that several paths lead to comes once for each; other objects are entered once. Tensors behind `__slots__`,
    closures or C objects are not found here: whoever needs all of them pickles the state.
    """
    seen: set[int] = set()
    stack: list[tuple[_Link, Any]] = [(None, state)]
    while stack:
        link, value = stack.pop()
        if isinstance(value, torch.Tensor):
            yield _path(link) or "state", value
            if (value.is_leaf or value.retains_grad) and value.grad is not None:  # torch warns whoever asks another
                stack.append(((link, "grad"), value.grad))
            continue
        if isinstance(value, _ATOMS) or (callable(value) and not hasattr(value, "__dict__")) or id(value) in seen:
            continue
        seen.add(id(value))
        stack.extend(((link, str(name)), child) for name, child in reversed(list(_children(value))))


def _path(link: "_Link") -> str:
    parts: list[str] = []
    while link is not None:
        link, name = link
        parts.append(name)
    return ".".join(reversed(parts))


def _children(value: Any) -> Iterator[tuple[object, Any]]:
    if isinstance(value, torch.nn.Module):
        for group in (value._parameters, value._buffers, value._modules):
            yield from group.items()
        for name, child in vars(value).items():
            if name not in ("_parameters", "_buffers", "_modules") and not isinstance(child, _ATOMS):
                yield name, child
    elif isinstance(value, dict):
        for key, child in value.items():
            if isinstance(key, str | int):
                yield key, child
    elif isinstance(value, list | tuple | set | frozenset):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name, None)
    elif not isinstance(value, type) and type(value).__module__ not in ("builtins", "types", "threading"):
        yield from getattr(value, "__dict__", {}).items()


def modules_of(state: Any, path: str = "", depth: int = 3) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield (path, module) for the modules that lie within `depth` steps of a state's top, and for all modules below them.

    A walk that goes no deeper is quick: a start makes it before its handler begins.
    """
    if isinstance(state, torch.nn.Module):
        yield from state.named_modules(prefix=path)
    elif depth:
        children: Iterable[tuple[object, Any]] = getattr(state, "__dict__", {}).items()
        if isinstance(state, dict):
            children = state.items()
        elif isinstance(state, list | tuple):
            children = enumerate(state)
        for name, child in list(children):
            if not isinstance(child, str | int | float | torch.Tensor | type):
                yield from modules_of(child, f"{path}.{name}" if path else str(name), depth - 1)


def storage_names(state: Any) -> dict[int, tuple[list[str], torch.Tensor, torch.UntypedStorage]]:
    """By address of its storage: every path to it, the first tensor over it, and the storage. Tensors without one are left out."""
    found: dict[int, tuple[list[str], torch.Tensor, torch.UntypedStorage]] = {}
    for path, tensor in tensors_of(state):
        storage = storage_of(tensor)
        if storage is None:
            continue
        names, _, _ = found.setdefault(storage._cdata, ([], tensor, storage))
        if path not in names:
            names.append(path)
    return found


def storage_of(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    """A tensor's storage; None for those that have none (sparse, meta, fake, lazy, wrapped), or no shape over it (nested)."""
    if tensor.device.type == "meta" or tensor.layout is not torch.strided or tensor.is_nested:
        return None
    try:
        storage = tensor.untyped_storage()
        return storage if storage.device.type != "meta" else None  # which a fake tensor has, whatever device it names
    except (NotImplementedError, RuntimeError, ValueError):  # the last of a lazy module's parameter
        return None


def covers(tensor: torch.Tensor, storage: torch.UntypedStorage) -> bool:
    """Whether one contiguous tensor is all of its storage, so that the weights file can carry its dtype and shape."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.storage_offset() == 0
        and tensor.is_contiguous()
        and not tensor.is_conj()
        and not tensor.is_neg()
        and tensor.numel() * tensor.element_size() == storage.nbytes()
    )


def chunks_of(storage: torch.UntypedStorage, step: int = 8 * 2**20) -> Iterator[memoryview]:
    """A storage's bytes, piece by piece, without copying it whole. Views of CPU memory; other devices are copied a piece at a time."""
    size = storage.nbytes()
    if storage.device.type == "cpu":
        if size:
            memory = memoryview((ctypes.c_char * size).from_address(storage.data_ptr())).cast("B")
            for offset in range(0, size, step):
                yield memory[offset : offset + step]
        return
    with torch.inference_mode():
        flat = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)  # type: ignore[call-overload]
        for offset in range(0, size, step):
            yield from chunks_of(flat[offset : offset + step].cpu().untyped_storage(), step)


def digest_of(storage: torch.UntypedStorage) -> str:
    digest = hashlib.sha256()
    for chunk in chunks_of(storage):
        digest.update(chunk)
    return digest.hexdigest()
