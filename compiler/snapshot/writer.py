"""A state written to disk: its skeleton, and those of its weights in access order that no state before it has stored.

The state is written while the handler waits for it, before anything can change it; weights go from their memory to the file in
pieces, so that no second copy of them exists.
"""

import os
from pathlib import Path
from typing import Any

import msgspec
import torch

from tidalctl.artifacts.bundle.manifest import skeleton_file, state_prefix
from tidalctl.artifacts.bundle.weights_file import DTYPES, Entry, kept_address, plan_shards, write_shards
from tidalctl.artifacts.cause import Cause, Refused
from tidalctl.artifacts.state.library_registries import noted
from tidalctl.artifacts.state.skeleton import SkeletonPickler, SkeletonUnpickler, is_sentinel, shallow, why_not_picklable
from tidalctl.artifacts.state.slots import Slot
from tidalctl.artifacts.state.storages import chunks_of, covers, digest_of, storage_names
from tidalctl.compiler.side_effects.effects import Effects
from tidalctl.compiler.snapshot.records import RNG, SnapshotRequest
from tidalctl.compiler.snapshot.structure import first_loss

Found = dict[int, tuple[list[str], torch.Tensor, torch.UntypedStorage]]
StoredContents = dict[tuple[str, str, int], list[str]]  # names of stored weights by sha256, device and kept address


class NotStored(Refused):
    """A state can't be stored."""


class SnapshotWriter:
    """Writes one state into the request's folder. `report` holds what there is to tell of it, in the words of StateReport.

    `contents` are those of the states before it, and grows by its own.
    """

    def __init__(self, request: SnapshotRequest, number: int, init: str, contents: StoredContents) -> None:
        self._request = request
        self._number, self._prefix = number, state_prefix(number, init)
        self._contents = contents
        self._folder = Path(request.folder)
        self.report: dict[str, Any] = {}

    def write(self, state: Any, effects: Effects) -> None:
        """Raises NotStored, or OSError where the disk is full."""
        found = storage_names(state)
        shared = self._stored_before(found) if self._contents else {}
        names = {address: shared.get(address, self._prefix + names[0]) for address, (names, _, _) in found.items()}
        if "torch.rng" in effects.ambient:
            names[effects.ambient["torch.rng"].untyped_storage()._cdata] = self._prefix + RNG
        path = self._folder / skeleton_file(self._number)
        pickler, globals_ = write_skeleton(path, state, effects, names, self._request.root, self._prefix)
        self.report["globals"] = globals_
        self.report["kept_globals"] = tuple(map(str, effects.slots))
        self.report["shares"] = {self._prefix + found[address][0][0]: name for address, name in shared.items()}
        known = {*shared.values()}
        self._write_weights(found, {name: storage for name, storage in pickler.storages.items() if name not in known})

    def clear(self) -> None:
        """Remove what was written of a state that can't be stored."""
        (self._folder / skeleton_file(self._number)).unlink(missing_ok=True)

    def _stored_before(self, found: Found) -> dict[int, str]:
        """Return the names of weights with the same content that are stored already, each for one storage."""
        left = {key: list(names) for key, names in self._contents.items()}
        shared = {}
        for address, (_, tensor, storage) in found.items():
            entry = _entry("", tensor, storage, storage.data_ptr())
            if names := left.get((digest_of(storage), str(storage.device), entry.address)):
                shared[address] = names.pop(0)
        return shared

    def _write_weights(self, found: Found, storages: dict[str, torch.UntypedStorage]) -> None:
        main = self._number == 0
        bases = read_bases(Path(self._request.bases)) if self._request.bases and main else {}
        dynamic = self._request.dynamic if main else ()
        position = {name: index for index, name in enumerate(self._request.order)}
        stored = {name: storage for name, storage in storages.items() if name not in dynamic}
        names: list[str] = [name for name in storages if name in stored or name in bases]
        names += [name for name in bases if name not in storages]
        ranks = {name: position.get(name, len(position)) for name in names}
        ordered = sorted(names, key=ranks.__getitem__)
        entries: list[Entry] = []
        contents: dict[str, torch.UntypedStorage] = {}
        for name in ordered:
            address = storages[name].data_ptr() if name in storages else 0
            if name in bases:
                entries.append(_entry(name, bases[name], address=address))
                contents[name] = bases[name].untyped_storage()
            else:
                tensor = found[storages[name]._cdata][1] if storages[name]._cdata in found else None
                entries.append(_entry(name, tensor, storages[name], address))
                contents[name] = storages[name]
        tell = Progress(self._request.progress, sum(entry.nbytes for entry in entries))
        if not entries and not main:
            return
        shards = plan_shards(entries, self._request.shard_size, "weights" if main else f"weights.{self._number}")
        laid_out = write_shards(self._folder, shards, lambda p: chunks_of(contents[p.entry.name]), tell)
        devices = {name: str(storage.device) for name, storage in contents.items()}
        self.report |= {**msgspec.structs.asdict(laid_out), "devices": devices}
        for entry in entries:
            if entry.name not in bases:
                key = (laid_out.digests[entry.name], devices[entry.name], entry.address)
                self._contents.setdefault(key, []).append(entry.name)


def write_skeleton(
    path: Path, state: Any, effects: Effects, names: dict[int, str], root: str, prefix: str = ""
) -> tuple[SkeletonPickler, tuple[str, ...]]:
    """Pickle a state, and read it back, which tells the names that it resolves. Raises NotStored."""
    hooks = torch.utils.hooks.RemovableHandle.next_id  # the next hook must not take the key of a stored one
    skeleton = {
        "state": state,
        "bound": [(tuple(slot), value) for slot, value in effects.bound.items()],
        "added": [(tuple(slot), items) for slot, items in effects.added.items()],
        "filled": [(tuple(slot), contents) for slot, contents in effects.filled.items()],
        "noted": noted(),
        "ambient": effects.ambient,
        "hooks": hooks,
        "modules": list(effects.modules),
    }
    with open(path, "wb") as file:
        pickler = SkeletonPickler(file, names, effects.paths, whole=True, root=root, prefix=prefix)
        try:
            with shallow():
                pickler.dump(skeleton)
        except Exception as error:  # a state is pickled by code of its own, which may raise anything
            raise NotStored(Cause.NOT_PICKLABLE, what=_culprit(state, effects, error)) from error
    if overlap := pickler.overlap():
        raise NotStored(Cause.NOT_PICKLABLE, what=overlap)
    with open(path, "rb") as file:
        unpickler = SkeletonUnpickler(file, pickler.storages.__getitem__, allowed=None, root=root)
        try:
            restored = unpickler.load()
        except Exception as error:  # and built again by such
            raise NotStored(Cause.NOT_UNPICKLABLE, error=f"{type(error).__name__}: {error}") from error
    if rebound := _rebound(effects.bound, unpickler.seen):
        raise NotStored(Cause.GLOBAL_BOUND_ANEW, name=rebound)
    if loss := _loss(skeleton, restored, pickler, unpickler):
        raise NotStored(Cause.NOT_PICKLABLE, what=loss)
    return pickler, tuple(sorted(unpickler.seen))


def _loss(
    skeleton: dict[str, Any], restored: dict[str, Any], pickler: SkeletonPickler, unpickler: SkeletonUnpickler
) -> str | None:
    """Return what of a state, or of the globals that init has set, was read back otherwise than it was, with the path to it."""
    numbers, objects = pickler.memo.copy(), unpickler.memo.copy()  # type: ignore[attr-defined]

    def counterpart(value: Any) -> Any:
        return objects.get(numbers[id(value)][0]) if id(value) in numbers else None

    parts = [("state", skeleton["state"], restored["state"])]
    for name in ("bound", "added", "filled"):
        pairs = zip(skeleton[name], restored[name], strict=True)
        parts += [(str(Slot(*slot)), value, again) for (slot, value), (_, again) in pairs]
    try:
        return next((loss for name, value, again in parts if (loss := first_loss(value, again, counterpart, name))), None)
    except Exception as error:  # noqa: BLE001 - containers of the user's own may raise anything
        return f"it can't be compared with what is read back: {type(error).__name__}: {error}"


def _rebound(bound: dict[Slot, Any], seen: set[str]) -> Slot | None:
    """Return a slot that init bound, and by whose own name the skeleton asks for a function, a class or a sentinel."""
    for slot, value in bound.items():
        name = ".".join(filter(None, slot[1:]))
        if is_sentinel(value) or any(f"{asked}.".startswith(f"{slot.module}:{name}.") for asked in seen):
            return slot
    return None


def _entry(name: str, tensor: torch.Tensor | None, storage: torch.UntypedStorage | None = None, address: int = 0) -> Entry:
    storage = tensor.untyped_storage() if storage is None and tensor is not None else storage
    assert storage is not None
    dtype = "uint8" if tensor is None else str(tensor.dtype).removeprefix("torch.")
    if tensor is not None and dtype in DTYPES and covers(tensor, storage):
        shape = tuple(tensor.shape)
    else:
        dtype, shape = "uint8", (storage.nbytes(),)
    kept = kept_address(dtype, address) if storage.device.type == "cpu" else 0
    return Entry(name=name, dtype=dtype, shape=shape, nbytes=storage.nbytes(), address=kept)


def read_bases(path: Path) -> dict[str, torch.Tensor]:
    """What the capture child wrote, mapped; names of padding left out."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if not name.startswith(".pad.")}  # noqa: SIM118


class Progress:
    """Tells the parent how many bytes of how many are written, at most a hundred times."""

    def __init__(self, descriptor: int, total: int) -> None:
        self._descriptor = descriptor
        self._total = total
        self._done = self._told = 0

    def __call__(self, size: int) -> None:
        self._done += size
        if self._descriptor >= 0 and self._done - self._told >= max(self._total // 100, 1):
            self._told = self._done
            os.write(self._descriptor, f"{self._done} {self._total}\n".encode())


def _culprit(state: Any, effects: Effects, error: Exception) -> str:
    """Return the path to the object that can't be pickled, in the state or in a global that init has set, and what it is."""
    found: str = why_not_picklable(state, effects.paths)
    if "second time" not in found:
        return found
    for slot, value in zip(effects.slots, effects.values, strict=True):
        inner: str = why_not_picklable(value, effects.paths)
        if "second time" not in inner:
            return inner.replace("state", str(slot), 1)
    return f"{type(error).__name__}: {error}"
