"""A state from a bundle: the skeleton unpickled over weights, mapped or on a device, and over those that the dynamic init makes."""

import importlib
import io
import types
from pathlib import Path
from typing import Any

import torch

from tidalctl.artifacts.bundle.directory import read_checked
from tidalctl.artifacts.bundle.manifest import BundleWeight, Manifest
from tidalctl.artifacts.errors import COMPILE_AGAIN, Corrupt
from tidalctl.artifacts.state.contents import restore_contents
from tidalctl.artifacts.state.library_registries import note
from tidalctl.artifacts.state.skeleton import SkeletonUnpickler
from tidalctl.artifacts.state.slots import Slot, bind_slot, read_slot
from tidalctl.function.process_settings import apply_ambient
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.weights.file_mapping import PrivateMapping
from tidalctl.runtime.weights.weight_stream import WeightStream

Mappings = dict[str, PrivateMapping]


class ScriptFailed(Exception):
    """The dynamic init could not make its weights after all, and has left no trace of having tried."""


class WeightStorages:
    """A bundle's weights as storages over private mappings or a device's memory, one for each name, however many views there are."""

    def __init__(self, manifest: Manifest, mappings: Mappings, weights: WeightStream) -> None:
        self._stream = weights
        self._weights: dict[str, BundleWeight] = {weight.name: weight for weight in manifest.weights}
        self._mappings = mappings
        self._arrival = weights.attach()
        self._storages: dict[str, torch.UntypedStorage] = {}

    def of(self, name: str) -> torch.UntypedStorage:
        """Return the storage of this name. Raise Corrupt where the manifest lists none."""
        if name not in self._storages:
            self._storages[name] = self._made(name)
        return self._storages[name]

    def _made(self, name: str) -> torch.UntypedStorage:
        weight = self._weights.get(name)
        if weight is None:
            raise Corrupt(f"the skeleton asks for the weight {name}, which the manifest does not list", COMPILE_AGAIN)
        if weight.nbytes == 0:
            return torch.UntypedStorage(0, device=weight.device)
        if self._arrival is not None and self._arrival.carries(name):
            return self._arrival.storage(weight)
        self._stream.asked.add(name)
        memory = self._mappings[weight.file].memory
        storage = torch.frombuffer(memory, dtype=torch.uint8, count=weight.nbytes, offset=weight.offset).untyped_storage()
        if weight.device != "cpu":  # one that nothing streams to
            self._stream.need([name])  # the copy reads it
            return storage.to(device=torch.device(weight.device))
        self._stream.watch(name, storage)
        return storage

    def need(self, name: str) -> None:
        """Return when operators may read this weight."""
        if self._arrival is not None and self._arrival.carries(name):
            self._arrival.need([name])
        else:
            self._stream.need([name])


def unpickle(
    skeleton_file: Path,
    manifest: Manifest,
    mappings: Mappings,
    timeline: Timeline,
    dynamic: types.ModuleType | None,
    event: Any,
    weights: WeightStream,
    root: str,
) -> dict[str, Any]:
    """Return what a skeleton holds: a state, and what init had set besides, which `settle` sets. Raises ScriptFailed.

    `root` is where the function finds its project.

    The weights may still be on their way: their memory is not read here, but for those that the dynamic init asks for.
    """
    with weights.kept_if_made():
        with timeline.span("map"):
            storages = WeightStorages(manifest, mappings, weights)
        built: dict[str, torch.UntypedStorage] = {}
        if dynamic is not None:
            with timeline.span("dynamic init"):
                built = _built(manifest, storages, dynamic, event)

        def storage_of(name: str) -> torch.UntypedStorage:
            return built[name] if name in built else storages.of(name)

        with timeline.span("restore"):
            # checked as it is read: somebody may have spoiled it since the start
            data = read_checked(skeleton_file.parent, manifest, skeleton_file.name, check=weights.options.verify != "off")
            found: dict[str, Any] = SkeletonUnpickler(io.BytesIO(data), storage_of, manifest.globals, root).load()
            torch._utils._sparse_tensors_to_validate.clear()  # torch.load empties it, and pickle does not: it keeps what it lists
            return found


def settle(skeleton: dict[str, Any], timeline: Timeline) -> Any:
    """Set what init had set besides its state, which is returned."""
    with timeline.span("ambient"):
        for module in skeleton["modules"]:
            importlib.import_module(module)  # which may do more than be there: it patches a library, say
        for slot, value in skeleton["bound"]:
            bind_slot(Slot(*slot), value)
        for slot, items in skeleton["added"]:
            read_slot(Slot(*slot)).update(items)
        for slot, contents in skeleton["filled"]:
            restore_contents(read_slot(Slot(*slot)), contents)
        note(skeleton["noted"])
        apply_ambient(skeleton["ambient"])
        handles = torch.utils.hooks.RemovableHandle
        handles.next_id = max(handles.next_id, skeleton["hooks"])
    timeline.mark("restored")
    return skeleton["state"]


def _built(
    manifest: Manifest, storages: WeightStorages, dynamic: types.ModuleType, event: Any
) -> dict[str, torch.UntypedStorage]:
    """The weights that the dynamic init makes for the event, by name."""
    leaves = dynamic.leaves()

    def weight(name: str) -> torch.Tensor:
        storage = storages.of(name)
        storages.need(name)
        dtype, shape, strides, offset = leaves[name]
        flat = torch.empty(0, dtype=getattr(torch, dtype), device=storage.device).set_(storage)  # type: ignore[call-overload]
        return flat.as_strided(shape, strides, offset)

    try:
        made: dict[str, torch.Tensor] = dynamic.build(event, weight)
        missing = sorted(set(manifest.dynamic) - made.keys())
        if missing:
            raise ValueError(f"it made no {missing[0]}")
    except Exception as error:  # the script calls operators of libraries, which may raise anything; eager init then says what
        raise ScriptFailed(f"{type(error).__name__}: {error}") from error
    return {name: tensor.untyped_storage() for name, tensor in made.items()}


def digests_of(state: Any) -> dict[str, str]:
    """sha256 of each weight of a state, by name."""
    from tidalctl.artifacts.state.storages import digest_of, storage_names

    return {names[0]: digest_of(storage) for names, _, storage in storage_names(state).values()}
