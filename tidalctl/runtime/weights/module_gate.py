"""Makes a module wait for the weights that it owns, before its forward, until the last group is in.

One hook for all modules of the process (torch's global forward pre-hook), so that no module of the user's carries anything of ours: it
copies, pickles and prints as ever. It goes when the last weight is in, and before torch.compile looks at a module: what that sees of
this process becomes part of what it compiles.

Limits: a weight that is read otherwise than through its own module's call does not wait. On the CPU it is read all the same, since the
mapped file is the memory; that it was right is known before output leaves (see weights.WeightStream.refuse_wrong).
"""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from tidalctl.artifacts.state.storages import modules_of

COMPILER = "torch._dynamo"


class Gate:
    """Open for modules whose groups are in; `need` is asked for the others. `wait` returns when every group is in."""

    def __init__(self, need: Callable[[Iterable[int]], None], wait: Callable[[], None] | None = None) -> None:
        self._need = need
        self._wait = wait or (lambda: need(index for groups in list(self._groups.values()) for index in groups))
        self._groups: dict[int, Sequence[int]] = {}  # by a storage's address
        self._unsorted: list[int] = []  # addresses of the state that is being made
        self._lock = threading.Lock()
        self._hook: Any = None
        self._compiles = CompileWatch(self._compiling)
        self._open = False
        self.on_compile: Callable[[], None] = lambda: None  # called before something is compiled, when everything is in

    def watch(self, storage: torch.UntypedStorage, groups: Sequence[int]) -> None:
        """This storage's content is in these groups."""
        if not self._open and storage.nbytes():
            self._groups[storage.data_ptr()] = groups
            self._unsorted.append(storage.data_ptr())

    def close(self, state: Any, hold: Callable[[Mapping[int, Sequence[int]]], None] | None = None) -> None:
        """From now on modules wait. What no module of the state owns is given to `hold`, or waited for here."""
        owned = {address_of(tensor) for _, module in modules_of(state) for tensor in _own(module)}
        known, addresses, self._unsorted = self._groups, self._unsorted, []
        unowned = {address: known[address] for address in addresses if address not in owned and address in known}
        with self._lock:
            if not self._open and self._hook is None:
                self._hook = register_module_forward_pre_hook(self._before)
                self._compiles.begin()
        if hold is not None:
            hold(unowned)
        else:
            self._need(index for groups in unowned.values() for index in groups)

    def open(self) -> None:
        """Everything is in: nobody waits any more."""
        with self._lock:
            self._open = True
            if self._hook is not None:
                self._hook.remove()
                self._hook = None
                self._compiles.end()
            self._groups = {}

    def _before(self, module: torch.nn.Module, arguments: Any) -> None:
        known = self._groups
        for tensor in _own(module):
            if (groups := known.get(address_of(tensor))) is not None:
                self._need(groups)

    def _compiling(self) -> None:
        self._wait()
        self.open()
        self.on_compile()


class CompileWatch:
    """Calls back before torch.compile begins with a frame, in its thread; or at the compiler's import, where that is yet to come."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def begin(self) -> None:
        if COMPILER in sys.modules:
            handler = sys.modules[COMPILER].callback_handler
            handler.start_callbacks = [*handler.start_callbacks, self._started]
        else:
            sys.meta_path.insert(0, self)  # type: ignore[arg-type]

    def end(self) -> None:
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        if (handler := getattr(sys.modules.get(COMPILER), "callback_handler", None)) is not None:
            # a list of its own, since another thread may be going through the old one
            handler.start_callbacks = [call for call in handler.start_callbacks if call != self._started]

    def _started(self, arguments: Any) -> None:
        self._call()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == COMPILER:
            self._call()


def _own(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    for tensors in (module._parameters, module._buffers):
        yield from (tensor for tensor in tensors.values() if tensor is not None)


def address_of(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's memory, 0 where it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # a wrapper without memory of its own
        return 0
