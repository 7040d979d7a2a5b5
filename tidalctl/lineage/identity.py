"""What identities are made of: hashes, the names of operators, and digests of what loaders hand out."""

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from tidalctl.artifacts.state.storages import digest_of, storage_of
from tidalctl.artifacts.trace.records import Source
from tidalctl.artifacts.trace.tape import UNKNOWN
from tidalctl.lineage.arguments import geometry

# what only gives another name to memory that is there already
RENAMES = frozenset(("aten.set_", "aten.lift_fresh", "aten.lift", "aten.alias", "aten.detach"))

_stat = os.stat  # as it is before anybody watches it


def hashed(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts, separators=(",", ":")).encode(), digest_size=16).hexdigest()


def operator_name(func: Any) -> str:
    """`aten.mm`: namespace and name without the overload."""
    return str(func._schema.name).replace("::", ".", 1)


def tensors_written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """Return the tensors that an operator writes to, by its schema."""
    found = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            found += [t for t in tree_leaves(value) if isinstance(t, torch.Tensor) and storage_of(t) is not None]
    return found


def covers_storage(tensor: torch.Tensor) -> bool:
    """Whether a tensor, contiguous, is all of its storage."""
    storage = storage_of(tensor)
    if storage is None or not tensor.is_contiguous() or tensor.storage_offset():
        return False
    return tensor.numel() * tensor.element_size() == storage.nbytes()


def generator_digest() -> str:
    """Of the state of the process's own random generator on the CPU."""
    return digest_of(torch.get_rng_state().untyped_storage())[:32]


def content_digest(tensor: torch.Tensor) -> str:
    """sha256 of all of the memory that a tensor lies in."""
    storage = storage_of(tensor)
    assert storage is not None
    with _disable_current_modes():
        return digest_of(storage)


class SourceDigests:
    """Content digests of what loaders hand out. What a file's key holds is read once, however many events ask for it."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], str] = {}

    def of(self, tensor: torch.Tensor, source: Source, operators: tuple[str, ...]) -> str:
        try:
            status = _stat(source.file) if source.file != UNKNOWN else None
        except OSError:
            status = None
        if status is None or not source.key:
            return content_digest(tensor)
        key = (source.file, source.key, operators, status.st_size, status.st_mtime_ns, *geometry(0, tensor))
        if key not in self._known:
            self._known[key] = content_digest(tensor)
        return self._known[key]


class Quiet:
    """Says on which threads a loader is at work, whose inside is not init's."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        before, self._local.on = self.on, True
        try:
            yield
        finally:
            self._local.on = before

    @property
    def on(self) -> bool:
        return bool(getattr(self._local, "on", False))
