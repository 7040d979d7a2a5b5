"""What init leaves in the project's modules besides the state that it returns: globals that it binds or changes in place.

Compared before and after init by digest: the pickle of each global, tensors by their bytes, functions, classes and modules by which
they are, and what can't be pickled by identity and by what is in it. Attributes of classes (their methods, too) and functions, and what
a function carries from call to call, are watched too, but not kept: an init that sets one runs in every start.
"""

import contextvars
import enum
import gc
import hashlib
import io
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any

from tidalctl.artifacts.project import is_own
from tidalctl.artifacts.skeleton import Place, SkeletonPickler
from tidalctl.artifacts.storages import digest_of
from tidalctl.compiler.carried import CACHE, carried_over
from tidalctl.compiler.places import parts_within, within

_NAMED = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)  # pickled by name
_DESCRIPTORS = (types.FunctionType, property, classmethod, staticmethod)
# which copy it is makes no difference, or there is but one
_ATOMS = (str, bytes, int, float, complex, bool, type(None), tuple, frozenset, PurePath, enum.Enum, *_NAMED)

Global = tuple[str, str]


class ModuleState:
    """The project's globals and class attributes as they were when this was made. Make it before init, ask it after."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._inside: set[int] = set()  # what lies in them
        self._globals: dict[Global, str] = {}
        self._objects: dict[Global, int] = {}  # which one each was
        for place, value in self._project_globals():
            self._note_global(place, value)
        self._attributes = {name: _digest(value) for name, value in self._class_attributes()}
        self.imported: list[str] = []  # the project's modules that init has imported
        self._modules = {module for module, _ in self._globals} | {name for name, _ in self.project_modules()}

    def note_module(self, name: str) -> None:
        """A module that init imports has just run: what its own code set is not what init sets."""
        self._modules.add(name)
        self.imported.append(name)
        for place, value in self._project_globals():
            if place[0] == name:
                self._note_global(place, value)
        for attribute, value in self._class_attributes():
            if attribute.partition(":")[0] == name:
                self._attributes[attribute] = _digest(value)

    def _note_global(self, place: Global, value: Any) -> None:
        self._inside.update(map(id, parts_within(value, is_atom)))  # before the digest, which sees what looking changes
        self._globals[place], self._objects[place] = _digest(value), id(value)

    def kept(self) -> dict[str, dict[str, Any]]:
        """Globals that are new or not what they were, by module."""
        found: dict[str, dict[str, Any]] = {}
        for (module, name), value in self._project_globals():
            if module in self._modules and self._globals.get((module, name)) != _digest(value):
                found.setdefault(module, {})[name] = value
        return found

    def gone(self) -> str:
        """A global that is no more, dotted; empty where all are there."""
        now = {place for place, _ in self._project_globals()}
        return next((".".join(place) for place in self._globals if place not in now and place[0] in sys.modules), "")

    def is_object_of_before(self, place: Global, value: Any) -> bool:
        """Whether a global still is what it was, and not another object, whatever it holds now."""
        return self._objects.get(place) == id(value)

    def was_inside(self, value: Any) -> bool:
        """Whether an object lay in a global before."""
        return id(value) in self._inside

    def dicts(self) -> list[int]:
        """Which objects are the namespaces of the project's modules."""
        return [id(vars(module)) for _, module in self.project_modules()]

    def digests(self, places: Iterable[Global]) -> dict[str, str]:
        """What globals hold now, by name."""
        now = dict(self._project_globals())
        return {f"{module}.{name}": _digest(now.get((module, name))) for module, name in places}

    def changed_attribute(self) -> str:
        """An attribute of a class or a function that init set, empty where it set none."""
        for name, value in self._class_attributes():
            if name.partition(":")[0] in self._modules and self._attributes.get(name) != _digest(value):
                return name.replace(":", ".")
        return ""

    def untouched(self) -> dict[Place, Any]:
        """Globals that init left alone, and attributes of classes: what a state holds of them it must hold again, not a copy."""
        found: dict[Place, Any] = {}
        for place, value in self._project_globals():
            if isinstance(value, type) and value.__module__ == place[0] and not isinstance(value, enum.EnumMeta):
                for _, name, attribute in self._attributes_of("", value):
                    if name and not is_atom(attribute) and not isinstance(attribute, _DESCRIPTORS):
                        found[*place, ("attribute", name)] = attribute
            elif not isinstance(value, _ATOMS) and self._globals.get(place) == _digest(value):
                found[place] = value
        return found

    def shared(self) -> dict[int, Place]:
        """What lies in untouched globals, by identity, down to some steps."""
        return within(self.untouched(), is_atom)

    def holds(self, state: Any) -> bool:
        """Whether a global of the project is the state, or holds it: then init gives the same one when it is called again."""
        for _, value in self._project_globals():
            inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
            if value is state or any(item is state for item in inside):
                return True
        return False

    def cache_with(self, state: Any, init: Any) -> str:
        """The function of the project, other than `init`, whose cache holds the state or what lies at its top; empty for none."""
        held = {id(value) for value in (state, *_parts(state)) if not is_atom(value)}
        for module_name, module in self.project_modules():
            for name, value in list(vars(module).items()):
                if isinstance(value, CACHE) and value is not init and any(id(result) in held for result in _cached(value)):
                    return f"{module_name}.{name}"
        return ""

    def project_modules(self) -> Iterator[tuple[str, types.ModuleType]]:
        for name, module in list(sys.modules.items()):
            if self.owns(module):
                yield name, module

    def owns(self, module: types.ModuleType) -> bool:
        """Whether a module is the project's own."""
        return self.owns_file(str(getattr(module, "__file__", None) or ""))

    def owns_file(self, file: str) -> bool:
        return is_own(file, self._root)

    def _project_globals(self) -> Iterator[tuple[Global, Any]]:
        for module_name, module in self.project_modules():
            for name, value in list(vars(module).items()):
                submodule = isinstance(value, types.ModuleType) and value.__name__ == f"{module_name}.{name}"
                if not is_dunder(name) and not submodule:  # which any import binds in its package
                    yield (module_name, name), value

    def _class_attributes(self) -> Iterator[tuple[str, Any]]:
        for module_name, module in self.project_modules():
            for name, value in list(vars(module).items()):
                if isinstance(value, enum.EnumMeta):
                    continue  # combined members are noted in their class
                here = getattr(value, "__module__", None) == module_name
                if isinstance(value, type) and here:
                    for attribute, _, item in self._attributes_of(f"{module_name}:{value.__qualname__}", value):
                        yield attribute, item
                elif isinstance(value, types.FunctionType | CACHE):
                    for attribute, item in vars(value).items() if here else ():
                        if not is_dunder(attribute):
                            yield f"{module_name}:{value.__qualname__}.{attribute}", item
                    for label, item in carried_over(value, self.owns_file):
                        yield f"{module_name}:{name}.{label}", item

    def _attributes_of(self, place: str, cls: type) -> Iterator[tuple[str, str, Any]]:
        """With the name of each in the class; empty for what a method carries over."""
        for name, attribute in list(vars(cls).items()):
            method = isinstance(attribute, _DESCRIPTORS)
            if method or not is_dunder(name):
                yield f"{place}.{name}", name, attribute
            for label, item in carried_over(attribute, self.owns_file) if method else ():
                yield f"{place}.{name}.{label}", "", item


def is_dunder(name: str) -> bool:
    """Whether a name is one of Python's own."""
    return name.startswith("__") and name.endswith("__")


def is_atom(value: Any) -> bool:
    """Whether it makes no difference which copy of a value it is; what a tuple holds is for the caller to ask."""
    return isinstance(value, (*_ATOMS, *_torch_atoms()))


def _torch_atoms() -> tuple[type, ...]:
    import torch

    return torch.device, torch.dtype, torch.Size, torch.layout, torch.memory_format


def _cached(cache: Any) -> Iterator[Any]:
    """The results that a `functools.cache` or `lru_cache` holds: only the collector of garbage is told of them."""
    for held in gc.get_referents(cache):
        yield held  # a bounded cache's results
        if isinstance(held, dict):
            yield from held.values()  # and a boundless one's


def _parts(value: Any) -> list[Any]:
    """What a value holds, one step down."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, contextvars.ContextVar):
        return [value.get(None)]
    return list(getattr(value, "__dict__", {}).values())


def _digest(value: Any, depth: int = 3) -> str:
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
