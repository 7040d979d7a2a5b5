"""The tensors, storages and modules of a state: the paths that lead to them, in the order in which a reader would list them."""

import collections
import ctypes
import hashlib
import types
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from tidalctl.artifacts.state.attributes import attributes_of

# a path, from its end: (the path before, the last name), so that a long chain of objects costs no long strings
_Link = tuple["_Link", str] | None

_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, torch.dtype, torch.device, torch.Size)
_LEAVES = (*_ATOMS, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)  # what code holds is no part of a state


def tensors_of(state: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (path, tensor) for every tensor that attributes, items and fields of `state` lead to, depth first.

    A tensor that several paths lead to comes once for each; other objects are entered once, also those that a tensor holds by
    attributes, as a wrapper holds its inner tensors. Tensors behind closures or C objects are not found here: whoever needs all
    of them pickles the state.
    """
    seen: dict[int, Any] = {}  # with the objects, so that no other one gets an identity of theirs
    stack: list[tuple[_Link, Any]] = [(None, state)]
    while stack:
        link, value = stack.pop()
        if isinstance(value, torch.Tensor):
            yield _path(link) or "state", value
            if (value.is_leaf or value.retains_grad) and value.grad is not None:  # torch warns whoever asks another
                stack.append(((link, "grad"), value.grad))
        if isinstance(value, _LEAVES) or id(value) in seen:
            continue
        seen[id(value)] = value
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
        for name, child in attributes_of(value).items():
            if name not in ("_parameters", "_buffers", "_modules") and not isinstance(child, _ATOMS):
                yield name, child
        return
    if isinstance(value, dict):
        yield from ((key, child) for key, child in value.items() if isinstance(key, str | int))
    elif isinstance(value, list | tuple | set | frozenset | collections.deque):
        yield from enumerate(value)
    if type(value).__module__ != "threading":
        yield from attributes_of(value).items()


def modules_of(state: Any, path: str = "", depth: int = 3) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield (path, module) for the modules that lie within `depth` steps of a state's top, and for all modules below them.

    A walk that goes no deeper is quick: a start makes it before its handler begins.
    """
    if isinstance(state, torch.nn.Module):
        yield from state.named_modules(prefix=path)
    elif depth:
        children: Iterable[tuple[object, Any]] = attributes_of(state).items()
        if isinstance(state, dict):
            children = state.items()
        elif isinstance(state, list | tuple):
            children = enumerate(state)
        for name, child in list(children):
            if not isinstance(child, str | int | float | torch.Tensor | types.ModuleType | type):
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
        if storage.device.type == "meta":  # which a fake tensor has, whatever device it names
            return None
        if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
            storage.data_ptr()  # raises where a wrapper has a storage in name only
        return storage
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
