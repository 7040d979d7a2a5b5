"""What feeds a tape: a dispatch mode for a thread's operators, and the host's own ways to look at a tensor."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tidalctl.lineage.dispatch import Mode, is_for_a_wrapper, on_every_thread
from tidalctl.lineage.tape import Tape

_HOST_READS = ("numpy", "tolist", "__array__")


class LineageMode(Mode):
    """Feeds a tape from the operators of one thread. Make one for each thread."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._tape.quiet.on:
            return func(*args, **kwargs)
        if types and is_for_a_wrapper(types, (args, kwargs)):
            return NotImplemented
        call = self._tape.before(func, args, kwargs)
        out = func(*args, **kwargs)
        self._tape.after(func, args, kwargs, call, out)
        return out


@contextmanager
def recording(tape: Tape) -> Iterator[set[int]]:
    """A context in which all that this thread, and threads that start meanwhile, do with tensors goes onto a tape.

    Gives the identifiers of those threads.
    """

    def noting(name: str, original: Any) -> Any:
        def read(tensor: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:
            tape.note_host_read(tensor, f"host.{name.strip('_')}")
            return original(tensor, *arguments, **keywords)

        return read

    own = {name: vars(torch.Tensor)[name] for name in _HOST_READS if name in vars(torch.Tensor)}
    for name in _HOST_READS:
        setattr(torch.Tensor, name, noting(name, getattr(torch.Tensor, name)))
    try:
        with on_every_thread(lambda: LineageMode(tape)) as threads:
            yield threads
    finally:
        for name in _HOST_READS:
            if name in own:
                setattr(torch.Tensor, name, own[name])
            else:
                delattr(torch.Tensor, name)  # it was inherited
