"""The skeleton: a state without its tensors, as a pickle in which each tensor storage is a name.

Storages are cut out one level below tensors, so that torch's own reducers keep views, strides, tied parameters, conjugate bits,
subclasses and gradients flags as they are. Reading resolves only the names that the manifest lists.
"""

import contextlib
import hashlib
import importlib
import io
import itertools
import pickle
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import torch

from tidalctl.artifacts.errors import COMPILE_AGAIN, Corrupt
from tidalctl.artifacts.state.pickling_loss import order_loss, pickling_loss
from tidalctl.artifacts.state.project_paths import KIND, path_at, project_path, project_roots
from tidalctl.artifacts.state.readable_paths import item, readable
from tidalctl.artifacts.state.storages import storage_names

PROTOCOL = 5
MAX_DEPTH = 3000

Place = tuple[Any, ...]  # a module, a global of it, and steps from there: ("item", key) or ("attribute", name)


class SkeletonPickler(pickle.Pickler):
    """Pickles a state and collects its storages by name, in the order of the pickle.

    `names` gives the name of a storage by its address; storages that have none (hidden in an object that no walk reaches) are
    numbered. `shared` are objects, by identity, that stand in the pickle as a place: globals, and what they hold.
    `whole` refuses what would be unpickled with less than it has now; where nobody will, there is no need. `root` is the project's
    folder: paths in it stand in the pickle by their place there. `prefix` begins the names of storages that had none.
    """

    def __init__(
        self,
        file: IO[bytes],
        names: dict[int, str],
        shared: dict[int, Place] | None = None,
        *,
        whole: bool = False,
        root: str = "",
        prefix: str = "",
    ) -> None:
        super().__init__(file, protocol=PROTOCOL)
        self._roots = project_roots(root) if root else ()
        self._prefix = prefix
        self._shared = shared or {}
        self._whole = whole
        self._names = names
        self.storages: dict[str, torch.UntypedStorage] = {}
        self._keys: dict[int, str] = {}
        self._arrays: dict[int, tuple[int, int, str]] = {}

    def persistent_id(self, value: Any) -> Any:
        if (place := self._shared.get(id(value))) is not None:
            return ("global", *place)
        if (path := project_path(value, self._roots)) is not None:
            return path
        if self._whole:
            _refuse_order_loss(value)
        if type(value).__name__ == "ndarray" and value.nbytes:
            begin = value.__array_interface__["data"][0]
            reach = [(count - 1) * stride for count, stride in zip(value.shape, value.strides, strict=True)]
            last = begin + sum(max(step, 0) for step in reach) + value.itemsize
            self._arrays[id(value)] = (begin + sum(min(step, 0) for step in reach), last, "a NumPy array")
        if isinstance(value, torch.storage.TypedStorage):
            return ("typed", self._key(value._untyped_storage), str(value.dtype).removeprefix("torch."))
        if isinstance(value, torch.UntypedStorage):
            return ("untyped", self._key(value), "")
        return None

    def _key(self, storage: torch.UntypedStorage) -> str:
        address = storage._cdata
        if storage.device.type == "cpu" and storage.is_shared():
            raise pickle.PicklingError("it lies in memory that is shared with other processes")
        if address not in self._keys:
            self._keys[address] = self._names.get(address) or f"{self._prefix}unnamed.{len(self._keys)}"
            self.storages[self._keys[address]] = storage
        return self._keys[address]

    def reducer_override(self, value: Any) -> Any:
        if self._whole:
            _refuse_loss(value)
        return _reduced(value)

    def overlap(self) -> str | None:
        """Name what shares memory in a way that torch does not know of, and so would not share it when restored."""
        spans = [(s.data_ptr(), s.data_ptr() + s.nbytes(), name) for name, s in self.storages.items() if s.nbytes()]
        for (_, end, one), (begin, _, other) in itertools.pairwise(sorted([*spans, *self._arrays.values()])):
            if begin < end:
                return f"{one} and {other} share memory, but not as views of one tensor"
        return None


def _refuse_loss(value: Any) -> None:
    if reason := pickling_loss(value):
        raise pickle.PicklingError(reason)


def _refuse_order_loss(value: Any) -> None:
    if type(value) in (set, frozenset) and (reason := order_loss(value)):  # for which no reducer is asked
        raise pickle.PicklingError(reason)


def _reduced(value: Any) -> Any:
    if isinstance(value, types.ModuleType):
        return importlib.import_module, (value.__name__,)
    if _featureless(value) and (place := _global_name(value)) is not None:
        return named_global, place
    if isinstance(value, torch.Tensor) and (value.grad_fn is not None or value.grad is not None):
        raise pickle.PicklingError("its gradient, or its graph, would be lost: make it under torch.no_grad()")
    return NotImplemented


def _featureless(value: Any) -> bool:
    """Whether nothing but its identity tells an object from another one of its class: `object()`, or `dataclasses.MISSING`."""
    kind = type(value)
    plain = kind.__bases__ == (object,) and kind.__module__ != "builtins" and not vars(kind).get("__slots__")
    return kind is object or (plain and getattr(value, "__dict__", None) == {})


def _global_name(value: object) -> tuple[str, str] | None:
    """Where such a sentinel is a global: of any module, or of its class's. It is compared by identity, so a copy would be another."""
    own = type(value).__module__
    modules = list(sys.modules.items()) if type(value) is object else [(own, sys.modules.get(own))]
    for module_name, module in modules:
        for name, other in list(getattr(module, "__dict__", {}).items()):
            if other is value:
                return module_name, name
    return None


def is_sentinel(value: Any) -> bool:
    """Whether a skeleton holds an object by the name of a global."""
    return _featureless(value) and _global_name(value) is not None


def named_global(module: str, name: str) -> Any:
    """The sentinel that a skeleton holds by name."""
    return vars(importlib.import_module(module))[name]


def skeleton_digest(state: Any) -> str:
    """A digest of a state without its tensors' content, to tell whether two runs of init built the same; empty if none can be had."""
    file = io.BytesIO()
    names = {address: found[0][0] for address, found in storage_names(state).items()}
    try:
        with shallow():
            SkeletonPickler(file, names).dump(state)
    except Exception:  # noqa: BLE001 - why it can't be pickled is for the snapshot to say
        return ""
    return hashlib.sha256(file.getvalue()).hexdigest()


@contextlib.contextmanager
def shallow() -> Iterator[None]:
    """A recursion limit at which the pickler gives up before the stack does, whatever the function has set."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(min(limit, MAX_DEPTH))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


class SkeletonUnpickler(pickle.Unpickler):
    """Unpickles a skeleton over storages that `storage_of` gives by name.

    Resolves only `allowed` names (any, and notes them in `seen`, where it is None). Raises Corrupt for another name. `root` is where
    the project, or its copy, lies.
    """

    def __init__(
        self,
        file: IO[bytes],
        storage_of: Callable[[str], torch.UntypedStorage],
        allowed: Iterable[str] | None,
        root: str = "",
    ) -> None:
        super().__init__(file)
        self._root = root
        self._storage_of = storage_of
        self._allowed = None if allowed is None else frozenset(allowed)
        self.seen: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        shown = f"{module}:{name}"
        if self._allowed is not None and shown not in self._allowed:
            raise Corrupt(f"the skeleton asks for {shown}, which the manifest does not list", COMPILE_AGAIN)
        self.seen.add(shown)
        return _rebuild_tensor_v3 if shown == "torch._utils:_rebuild_tensor_v3" else super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "global":
            return self._at(*pid[1:])
        if pid[0] == KIND:
            return path_at(pid, self._root)
        kind, name, dtype = pid
        storage = self._storage_of(name)
        if kind == "untyped":
            return storage
        return torch.storage.TypedStorage(wrap_storage=storage, dtype=getattr(torch, dtype), _internal=True)

    def _at(self, module: str, name: str, *steps: tuple[str, Any]) -> Any:
        value = self.find_class(module, name)
        for kind, key in steps:
            try:
                value = value[key] if kind == "item" else vars(value)[key]
            except (LookupError, TypeError):
                raise Corrupt(
                    f"the skeleton asks for {key!r} in {module}.{name}, which is not there", "compile again"
                ) from None
        return value


def _rebuild_tensor_v3(storage: torch.UntypedStorage, *rest: Any) -> torch.Tensor:
    """What float8 and the wide unsigned dtypes are rebuilt by. torch's wants its storage typed, and its reducer gives it untyped."""
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.uint8, _internal=True)
    return torch._utils._rebuild_tensor_v3(typed, *rest)


class _PathPickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """The pure Python pickler, which can say where in the state it stands when an object refuses."""

    def __init__(self, shared: dict[int, Place]) -> None:
        super().__init__(io.BytesIO(), protocol=PROTOCOL)
        self._shared = shared
        self.stack: list[Any] = []

    def persistent_id(self, value: Any) -> Any:
        if id(value) not in self._shared:
            _refuse_order_loss(value)
        return 0 if id(value) in self._shared or isinstance(value, torch.storage.TypedStorage | torch.UntypedStorage) else None

    def reducer_override(self, value: Any) -> Any:
        _refuse_loss(value)
        return _reduced(value)

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        self.stack.append(obj)
        super().save(obj, save_persistent_id)  # type: ignore[misc]
        self.stack.pop()  # not in a finally: after an error the stack is the way to the culprit


def why_not_picklable(state: Any, shared: dict[int, Place] | None = None) -> str:
    """The path to the object that can't be pickled, and what it is: `state["model"].foo: a lambda`."""
    pickler = _PathPickler(shared or {})
    try:
        with shallow():
            pickler.dump(state)
    except Exception as error:  # noqa: BLE001 - whatever a user's __reduce__ raises is the answer
        return f"{_path(pickler.stack)}: {_describe(pickler.stack[-1], error)}"
    return "state: it pickled the second time, so it is not the same each time"


def _path(stack: list[Any]) -> str:
    """The path in words; of a long one the end, which is where the culprit is."""
    shown = "state"
    for parent, child in itertools.pairwise(stack):
        if isinstance(parent, dict):
            key = next((k for k, v in parent.items() if v is child), None)
            if key is not None:  # a dict that no container holds is what __getstate__ gave: an object's attributes
                attribute = isinstance(key, str) and _is_reduction(parent, stack)
                shown += f".{key}" if attribute else item(key)
        elif isinstance(parent, list | tuple) and not _is_reduction(parent, stack):
            index = next((i for i, v in enumerate(parent) if v is child), None)
            shown += f"[{index}]"
    return readable(shown)


def _is_reduction(value: Any, stack: list[Any]) -> bool:
    """Whether a tuple is a reducer's argument list rather than a part of the state: its parent is no container that holds it."""
    parent = stack[next(i for i, v in enumerate(stack) if v is value) - 1] if value is not stack[0] else None
    if value is stack[0]:
        return False
    if isinstance(parent, dict):
        return all(v is not value for v in parent.values())
    if isinstance(parent, list | tuple):
        return all(v is not value for v in parent)
    return True


def _describe(value: Any, error: Exception) -> str:
    if isinstance(value, types.FunctionType):
        if value.__name__ == "<lambda>":
            return "a lambda (make it a def at the top level of its module)"
        return f"the local function {value.__qualname__}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"a {kind} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
