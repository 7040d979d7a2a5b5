"""Dispatch modes that do not import torch's compiler, on one thread or on all.

Torch wraps the `__torch_dispatch__` of every mode so that the compiler leaves it alone, and imports the compiler for that with the
first operator: 800 modules and a second, in a process that may never compile anything, and whose imports we are about to list.
"""

import concurrent.futures.thread
import functools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tidalctl.artifacts.state.storages import storage_of


class Mode(TorchDispatchMode):
    """A mode that the compiler leaves alone once somebody has imported it; until then there is nobody to keep out."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if not cls._should_skip_dynamo() and "__torch_dispatch__" in vars(cls):
            cls.__torch_dispatch__ = _left_alone(vars(cls)["__torch_dispatch__"])  # type: ignore[method-assign]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """That torch need not see to it, where it asks. A torch that doesn't ask wraps ours once more, and all is as it was."""
        return False


def is_for_a_wrapper(types: Sequence[type], operands: Any) -> bool:
    """Whether an operator is given a tensor that wraps others and has no memory of its own.

    A mode that then returns NotImplemented is asked again for each operator that the wrapper's class runs on the inner tensors.
    """
    own = tuple(kind for kind in types if getattr(kind, "__torch_dispatch__", None) is not torch.Tensor.__torch_dispatch__)
    leaves: list[Any] = tree_leaves(operands) if own else []
    return any(isinstance(leaf, torch.Tensor) and isinstance(leaf, own) and storage_of(leaf) is None for leaf in leaves)


def _left_alone(dispatch: Callable[..., Any]) -> Callable[..., Any]:
    """`dispatch`, run as `torch.compiler.disable` runs it as soon as torch._dynamo is there."""
    disabled: Callable[..., Any] | None = None

    @functools.wraps(dispatch)
    def inner(*arguments: Any, **keywords: Any) -> Any:
        nonlocal disabled
        if disabled is None:
            disable = getattr(sys.modules.get("torch._dynamo"), "disable", None)  # not yet, while it is being imported
            if disable is None:
                return dispatch(*arguments, **keywords)
            disabled = disable(dispatch, recursive=True, wrapping=False)
        return disabled(*arguments, **keywords)

    return inner


@contextmanager
def on_every_thread(make: Callable[[], Mode]) -> Iterator[set[int]]:
    """A context: this thread, those that start inside it, and pool tasks run inside it, are each under a mode that `make` gives.

    Gives the identifiers of the other threads that have done work under a mode.
    """
    kind, item = threading.Thread, concurrent.futures.thread._WorkItem
    bootstrap, task = kind._bootstrap_inner, item.run  # type: ignore[attr-defined]
    local, threads = threading.local(), set[int]()
    local.inside = True

    def under(original: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            if getattr(local, "inside", False):  # a pool's thread that is under the mode already
                original(*arguments)
                return
            local.inside = True
            threads.add(threading.get_ident())
            try:
                with make():
                    original(*arguments)
            finally:
                local.inside = False

        return run

    # a subclass may override run(), so the wrapping goes around the private method that calls it
    kind._bootstrap_inner, item.run = under(bootstrap), under(task)  # type: ignore
    try:
        with make():
            yield threads
    finally:
        kind._bootstrap_inner, item.run = bootstrap, task  # type: ignore
