"""Lineage: how each tensor that init made came to be, from files and keys through operators. Strict: nothing is guessed.

A table from storages to origins. Loaders put sources in (tracer/sources.py); each operator of init passes on the origins of its
inputs to the storages that it makes or writes. A tensor that no loader and no operator is known to have made has the
source `unknown`.
"""

import threading
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tidalctl.artifacts.records import Record
from tidalctl.artifacts.storages import storage_of
from tidalctl.artifacts.trace import Source

UNKNOWN = Source(file="unknown", key="")
MAX_OPERATORS = 64  # a chain longer than this is cut in front, marked by "…"


class Origin(Record, frozen=True):
    sources: tuple[Source, ...] = ()
    operators: tuple[str, ...] = ()


class LineageTable:
    """Origins by storage. Holds weak references to the storages, so that no address is given out twice while it lives."""

    def __init__(self) -> None:
        self._origins: dict[int, Origin] = {}
        self._pins: dict[int, Any] = {}
        self._lock = threading.Lock()
        self.operators = 0

    def note_source(self, tensor: torch.Tensor, source: Source, operators: tuple[str, ...] = ()) -> None:
        """A loader made this tensor from `source`."""
        self._put(tensor, Origin(sources=(source,), operators=operators))

    def origin(self, storage: torch.UntypedStorage) -> Origin:
        return self._origins.get(storage._cdata, Origin(sources=(UNKNOWN,)))

    def _put(self, tensor: torch.Tensor, origin: Origin) -> None:
        storage = storage_of(tensor)
        if storage is None:
            return
        with self._lock:
            address = storage._cdata
            if address not in self._pins:
                self._pins[address] = torch.multiprocessing.reductions.StorageWeakRef(storage)
            self._origins[address] = origin

    def note_operator(self, name: str, inputs: Iterable[torch.Tensor], outputs: Iterable[torch.Tensor], views: bool) -> None:
        """An operator ran. A view changes nothing; anything else adds its name to what it made or wrote."""
        self.operators += 1
        if views:
            return
        before = [storage for tensor in inputs if (storage := storage_of(tensor)) is not None]
        sources = tuple(dict.fromkeys(source for storage in before for source in self.origin(storage).sources))
        chain = tuple(dict.fromkeys(name for storage in before for name in self.origin(storage).operators))
        operators = (*(name for name in chain if name != "…"), name) if not chain or chain[-1] != name else chain
        if len(operators) > MAX_OPERATORS:
            operators = ("…", *operators[-MAX_OPERATORS:])
        for tensor in outputs:
            self._put(tensor, Origin(sources=sources, operators=operators))


class LineageMode(TorchDispatchMode):
    """Feeds a table from the operators of one thread. Make one for each thread."""

    def __init__(self, table: LineageTable) -> None:
        super().__init__()
        self._table = table

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        # a fill's own first operand is overwritten, so what was in it is no ancestor
        if is_overwrite(func) and inputs and outputs:
            inputs = inputs[1:]
        self._table.note_operator(operator_name(func), inputs, outputs, func.is_view)
        return out


_OVERWRITES = frozenset(("aten.copy_", "aten.fill_", "aten.zero_", "aten.normal_", "aten.uniform_", "aten.random_"))


def is_overwrite(func: Any) -> bool:
    return operator_name(func) in _OVERWRITES


def operator_name(func: Any) -> str:
    """`aten.mm`: namespace and name without the overload."""
    return str(func._schema.name).replace("::", ".", 1)
