"""Globals of the project's modules and attributes of its classes, before and after init.

They are compared by digest: the pickle of each, tensors by their bytes; functions, classes and modules by identity; what can't be
pickled by identity and by the attributes or items of it. What functions carry from call to call (defaults, closures, attributes,
caches) is not looked at.
"""

import contextvars
import enum
import hashlib
import io
import itertools
import sys
import types
from collections.abc import Container, Iterable, Iterator
from pathlib import PurePath
from typing import Any, NamedTuple

from tidalctl.artifacts.project import is_own
from tidalctl.artifacts.state.skeleton import Place, SkeletonPickler
from tidalctl.artifacts.state.slots import Slot
from tidalctl.artifacts.state.storages import digest_of

_NAMED = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)  # pickled by name
_DESCRIPTORS = (types.FunctionType, property, classmethod, staticmethod)
# which copy it is makes no difference, or there is but one
_ATOMS = (str, bytes, int, float, complex, bool, type(None), tuple, frozenset, PurePath, enum.Enum, *_NAMED)


class _Noted(NamedTuple):
    """What a slot held: the digest, and the object itself, kept alive so that no other object gets its identity."""

    digest: str
    value: Any
    items: dict[Any, Any] | None = None  # of a dictionary


def _note(value: Any) -> _Noted:
    return _Noted(_digest(value), value, dict(value) if type(value) is dict else None)


class ProjectGlobals:
    """The project's globals and class attributes as they were when this was made: make it before init, and ask it afterwards."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.imported: list[str] = []  # the project's modules that were imported since
        self._modules = {name for name, _ in self._project_modules()}
        self._before = {slot: _note(value) for slot, value in self._slots()}

    def note_module(self, name: str) -> None:
        """Take a module of the project that was imported since as it is now: what its own code has set is not what init sets."""
        self._modules.add(name)
        self.imported.append(name)
        self._before |= {slot: _note(value) for slot, value in self._slots() if slot.module == name}

    def note_definitions(self, names: Container[tuple[str, str]]) -> None:
        """Take globals that were not there before as they are now, and classes among them with their attributes.

        `names` are module and name of each. What a definition sets is set in each start.
        """
        self._before |= {
            slot: _note(value)
            for slot, value in self._slots()
            if slot not in self._before and (slot.module, slot.owner.partition(".")[0] or slot.name) in names
        }

    def changed(self) -> dict[Slot, Any]:
        """Return what is new, bound anew or changed in place since, with the values of now."""
        return {
            slot: value
            for slot, value in self._slots()
            if slot.module in self._modules and not (slot in self._before and self._before[slot].digest == _digest(value))
        }

    def deleted(self) -> Slot | None:
        """Return a global, or an attribute of a class that is still there, which is no more."""
        now = {slot for slot, _ in self._slots()}
        owners = {slot[:2] for slot in now}
        return next((slot for slot in self._before if slot not in now and slot[:2] in owners), None)

    def is_same_object(self, slot: Slot, value: Any) -> bool:
        """Whether a slot held this object before, whatever was in it."""
        return slot in self._before and self._before[slot].value is value

    def items_before(self, slot: Slot, value: Any) -> dict[str | int, Any] | None:
        """Return the items that a dictionary in a slot held before and holds still, unchanged and before all others.

        None where it is no dictionary, another one than before, or has lost or changed an item.
        """
        noted = self._before.get(slot)
        if noted is None or noted.items is None or noted.value is not value:
            return None
        before = noted.items
        kept = dict(itertools.islice(value.items(), len(before)))
        same = list(kept) == list(before) and all(kept[key] is part for key, part in before.items())
        plain = all(type(key) in (str, int) for key in before)
        return before if same and plain and _digest(kept) == noted.digest else None

    def untouched(self, changed: Container[Slot]) -> dict[Place, Any]:
        """Return the objects in all other slots: what a state holds of them, it must hold again, and not a copy."""
        return {
            slot.place: value
            for slot, value in self._slots()
            if slot in self._before and slot not in changed and not isinstance(value, (*_ATOMS, *_DESCRIPTORS))
        }

    def held_by_functions(self) -> Iterator[Any]:
        """Yield what the project's functions hold in closures and defaults."""
        for _, value in self._slots():
            function = getattr(value, "__func__", value)
            while isinstance(function, types.FunctionType):
                cells = [cell for cell in function.__closure__ or () if cell != types.CellType()]
                yield from (cell.cell_contents for cell in cells)
                yield from (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
                function = vars(function).get("__wrapped__")

    def digests(self, slots: Iterable[Slot]) -> dict[Slot, str]:
        """Return the digests of what slots hold now."""
        now = dict(self._slots())
        return {slot: _digest(now.get(slot)) for slot in slots}

    def owns(self, module: types.ModuleType) -> bool:
        """Whether a module is the project's own."""
        return self.owns_file(str(getattr(module, "__file__", None) or ""))

    def owns_file(self, file: str) -> bool:
        return is_own(file, self._root)

    def _project_modules(self) -> Iterator[tuple[str, types.ModuleType]]:
        for name, module in list(sys.modules.items()):
            if self.owns(module):
                yield name, module

    def _slots(self) -> Iterator[tuple[Slot, Any]]:
        for module_name, module in self._project_modules():
            for name, value in list(vars(module).items()):
                submodule = isinstance(value, types.ModuleType) and value.__name__ == f"{module_name}.{name}"
                if not is_dunder(name) and not submodule:  # which any import binds in its package
                    yield Slot(module_name, "", name), value
            for owner, cls in _classes_in(module_name, "", vars(module)):
                for name, value in list(vars(cls).items()):
                    if not is_dunder(name) or isinstance(value, _DESCRIPTORS):
                        yield Slot(module_name, owner, name), value


def _classes_in(
    module: str, prefix: str, namespace: types.MappingProxyType[str, Any] | dict[str, Any]
) -> Iterator[tuple[str, type]]:
    """Yield the classes that are defined in a module, and those within them, by the qualified names that lead to them."""
    for name, value in list(namespace.items()):
        qualname = prefix + name
        if not isinstance(value, type) or value.__module__ != module:
            continue
        if value.__qualname__ != qualname and "<locals>" not in value.__qualname__:  # a function has made it for this name
            continue
        if not isinstance(value, enum.EnumMeta):  # which notes members that are combined in its class
            yield qualname, value
            yield from _classes_in(module, f"{qualname}.", vars(value))


def is_dunder(name: str) -> bool:
    """Whether a name is one of Python's own."""
    return name.startswith("__") and name.endswith("__")


def is_atom(value: Any) -> bool:
    """Whether it makes no difference which copy of a value it is; what a tuple holds is for the caller to ask."""
    return isinstance(value, (*_ATOMS, *_torch_atoms()))


def _torch_atoms() -> tuple[type, ...]:
    import torch

    return torch.device, torch.dtype, torch.Size, torch.layout, torch.memory_format


def _parts(value: Any) -> list[Any]:
    """Return what a value holds, one step down."""
    found = list(getattr(value, "__dict__", {}).values())
    slots = (name for cls in type(value).__mro__ for name in _names_of(vars(cls).get("__slots__", ())))
    found += [getattr(value, name) for name in slots if name not in ("__dict__", "__weakref__") and hasattr(value, name)]
    if isinstance(value, dict):
        found += value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        found += value
    elif isinstance(value, contextvars.ContextVar):
        found.append(value.get(None))
    return found


def _names_of(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _digest(value: Any, depth: int = 3) -> str:
    """Return a digest of a value, of what can't be pickled down to `depth` steps."""
    if isinstance(value, _NAMED):
        return f"{type(value).__name__} at {id(value)}"  # its name may be bound to another by now
    file = io.BytesIO()
    pickler = SkeletonPickler(file, {})
    try:
        pickler.dump(value)
    except Exception:  # noqa: BLE001 - what can't be pickled can still be told from another object, and by what is in it
        try:
            inside = [_digest(part, depth - 1) for part in _parts(value)] if depth else []
        except Exception:  # noqa: BLE001 - a stand-in for an object that is not there yet, say
            inside = []
        return f"{type(value).__name__} at {id(value)} {inside}"
    digest = hashlib.sha256(file.getvalue())
    for name, storage in pickler.storages.items():
        digest.update(f"{name} {digest_of(storage)}".encode())
    return digest.hexdigest()
