"""The handler's operators: which weight each reads first, which it writes, and the signature of each launch. Lax: views are free.

An operator that is only a view reads nothing. Reads outside the dispatcher (`.numpy()`, extensions that take raw pointers)
are not seen; their weights then count as never used, which costs them their place in the order and nothing else.
"""

import threading
import time
from types import TracebackType
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves

from tidalctl.artifacts.state.storages import storage_of
from tidalctl.artifacts.trace.records import FirstUse
from tidalctl.lineage.dispatch import Mode, is_for_a_wrapper
from tidalctl.lineage.identity import operator_name, tensors_written

RANGE = "tidalctl#"  # profiler ranges around each launch carry the number of its signature


class AccessRecord:
    """What the modes of all threads of one handler call found. `weights` maps storage addresses to indices of weights."""

    def __init__(self, event: int, weights: dict[int, int]) -> None:
        self.event = event
        self.weights = weights
        self.first_uses: dict[int, FirstUse] = {}
        self.written: dict[int, str] = {}
        self.signatures: dict[tuple[str, tuple[str, ...]], int] = {}
        self.counts: list[int] = []
        self.seconds: list[float] = []
        self.operators = 0
        self.hooks_s = 0.0
        self.began = time.perf_counter()
        self.paused_s = 0.0  # spent in init, inside the call
        self.lock = threading.Lock()

    def elapsed_s(self) -> float:
        return time.perf_counter() - self.began - self.paused_s

    def signature(self, operator: str, operands: tuple[str, ...]) -> int:
        with self.lock:
            number = self.signatures.setdefault((operator, operands), len(self.signatures))
            if number == len(self.counts):
                self.counts.append(0)
                self.seconds.append(0.0)
            self.counts[number] += 1
            return number


class AccessMode(Mode):
    """Feeds an AccessRecord from one thread. Make one for each thread."""

    def __init__(self, record: AccessRecord, modules: "ModuleStack") -> None:
        super().__init__()
        self._record = record
        self._modules = modules

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if types and is_for_a_wrapper(types, (args, kwargs)):
            return NotImplemented
        record = self._record
        record.operators += 1
        if func.is_view:
            out = func(*args, **kwargs)
            if not _shares_memory(out, args):  # within inference_mode a composite such as aten.to arrives whole, and copies
                self._note_uses(func, args, kwargs)
            return out
        began = time.perf_counter()
        self._note_uses(func, args, kwargs)
        number = record.signature(str(func), operands_of(args, kwargs))
        called = time.perf_counter()
        with torch._C._profiler._RecordFunctionFast(f"{RANGE}{number}"):
            out = func(*args, **kwargs)
        returned = time.perf_counter()
        record.seconds[number] += returned - called
        record.hooks_s += called - began
        return out

    def _note_uses(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        record, name = self._record, operator_name(func)
        for tensor in tree_leaves((args, kwargs)):
            weight = record.weights.get(_storage_id(tensor))
            if weight is not None and weight not in record.first_uses:
                record.first_uses[weight] = FirstUse(
                    weight=weight,
                    event=record.event,
                    module=self._modules.current(),
                    operator=name,
                    ordinal=record.operators,
                    time_s=record.elapsed_s(),
                )
        for tensor in tensors_written(func, args, kwargs):
            weight = record.weights.get(_storage_id(tensor))
            if weight is not None:
                record.written.setdefault(weight, name)


def _shares_memory(out: Any, args: tuple[Any, ...]) -> bool:
    """Whether all that came out lies in the memory of what went in."""
    given = {_storage_id(value) for value in tree_leaves(args)} - {0}
    return all(_storage_id(value) in given for value in tree_leaves(out) if isinstance(value, torch.Tensor))


def _storage_id(value: Any) -> int:
    """The address of a tensor's storage; 0 for what has none."""
    storage = storage_of(value) if isinstance(value, torch.Tensor) else None
    return 0 if storage is None else storage._cdata


class ModuleStack:
    """The modules whose forward is running, innermost last, for each thread. A context: hooks go when it ends."""

    def __init__(self, names: dict[int, str]) -> None:
        self._names = names  # by id of the module
        self._local = threading.local()

    def current(self) -> str:
        stack = self._local.__dict__.get("stack")
        return stack[-1] if stack else ""

    def __enter__(self) -> "ModuleStack":
        def enter(module: torch.nn.Module, inputs: Any) -> None:
            stack: list[str] = self._local.__dict__.setdefault("stack", [])
            stack.append(self._names.get(id(module), type(module).__name__))

        def leave(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            stack = self._local.__dict__.get("stack")
            if stack:
                stack.pop()

        self._handles = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()


def operands_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
    """Each operand without its data: `bfloat16[1, 32]/(32, 1)@cpu` for a tensor, its text for a plain value."""
    return (*map(_operand, args), *(f"{name}={_operand(value)}" for name, value in kwargs.items()))


def _operand(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided:
            return f"{_dtype(value.dtype)}{list(value.shape)}/{value.layout}@{value.device}"
        return f"{_dtype(value.dtype)}{list(value.shape)}/{tuple(value.stride())}@{value.device}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_operand, value))}]"
    if isinstance(value, torch.dtype):
        return _dtype(value)
    if value is None or isinstance(
        value, bool | int | float | complex | str | torch.device | torch.layout | torch.memory_format
    ):
        return str(value)
    return type(value).__name__


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
