"""A dispatch mode on all threads, with the host's own ways to a tensor's memory wrapped meanwhile."""

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tidalctl.lineage.threads import InEveryThread


class UnderMode:
    """A context: this thread, and those that start meanwhile, run under a mode of their own that `make` gives.

    `host_ways` names methods of torch.Tensor that get past the dispatcher; `wrap(name, original)` gives what stands in their place.
    """

    def __init__(
        self, make: Callable[[], TorchDispatchMode], host_ways: Iterable[str], wrap: Callable[[str, Any], Callable[..., Any]]
    ) -> None:
        self._everywhere = InEveryThread(make)
        self._mode = make()
        self._ways = tuple(host_ways)
        self._wrap = wrap

    @property
    def threads(self) -> int:
        """How many other threads have done work under it."""
        return self._everywhere.count

    def __enter__(self) -> "UnderMode":
        self._own = {name: vars(torch.Tensor)[name] for name in self._ways if name in vars(torch.Tensor)}
        for name in self._ways:
            setattr(torch.Tensor, name, self._wrap(name, getattr(torch.Tensor, name)))
        self._everywhere.__enter__()
        self._mode.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._mode.__exit__(kind, error, trace)
        self._everywhere.__exit__(kind, error, trace)
        for name in self._ways:
            if name in self._own:
                setattr(torch.Tensor, name, self._own[name])
            else:
                delattr(torch.Tensor, name)  # it was inherited
