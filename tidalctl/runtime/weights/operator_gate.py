"""Makes operators wait for the weights that they read, where no call of a module waits for them, until the last group is in.

On a device a weight's memory is not its content until the copy is done, and not all is read by the module that owns it:
`nn.MultiheadAttention` reads its `out_proj.weight` itself, a handler may write to a layer's weight, or sum all parameters.

This is a mode of torch's functions, not of its dispatcher: one of those can't go in the middle of `inference_mode`, whose end puts
the dispatcher's state back as it was before. Limits: it holds for the thread that it was entered in; in others a module's call waits
for everything, and an operator outside of one does not wait. What C++ reads by itself it does not see, and for that a module's call
waits (see gate). What is compiled while it holds is compiled again once it is gone.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode, _get_current_function_mode, _get_current_function_mode_stack

from tidalctl.runtime.weights.module_gate import address_of

# They read no memory of a tensor. `__get__` stands for all its attributes; the last are what unpickling one takes.
FREE = frozenset(
    (
        *("__get__", "dim", "size", "stride", "numel", "element_size", "is_contiguous", "storage_offset", "untyped_storage"),
        *("set_", "_make_subclass", "requires_grad_", "__set__"),
    )
)
# They take another way where a mode is there, whose answers may differ in the last bit.
LOOKING = (torch.nn.MultiheadAttention, torch.nn.TransformerEncoder, torch.nn.TransformerEncoderLayer)


class OperatorGate(TorchFunctionMode):
    """Asks `need` for the groups of each tensor that an operator is given. `groups` is by address of a storage.

    `wait` returns when every group is in: modules that would see the mode wait for that.
    """

    def __init__(
        self, need: Callable[[Iterable[int]], None], wait: Callable[[], None], groups: Mapping[int, Sequence[int]]
    ) -> None:
        self._need = need
        self._wait = wait
        self._groups = groups
        self._thread = 0  # which it was entered in, 0 before and after
        self._hook: Any = None
        self._open = False

    def close(self) -> None:
        """From now on this thread's operators wait. Inside another's mode, everything is waited for here."""
        # the end of another mode, that of `with torch.device(…)` too, would take this one off instead; a default device's won't
        default = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
        others = [mode for mode in _get_current_function_mode_stack() if mode is not default]
        if any(not isinstance(mode, OperatorGate) for mode in others):
            self._wait()
            return
        self._thread = threading.get_ident()
        self.__enter__()
        self._hook = register_module_forward_pre_hook(self._before)

    def open(self) -> None:
        """Everything is in: nobody waits any more, and at the next chance this is gone."""
        self._open = True

    def leave(self) -> bool:
        """Be gone, if everything is in and this is the thread, with no other mode above. Says whether it is."""
        if self._open and self._thread == threading.get_ident() and _get_current_function_mode() is self:
            self._thread = 0
            self._hook.remove()
            self.__exit__(None, None, None)
        return not self._thread

    def _before(self, module: torch.nn.Module, arguments: Any) -> None:
        if not self._open and (isinstance(module, LOOKING) or self._thread != threading.get_ident()):
            self._wait()
            self.open()
        self.leave()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._open and getattr(func, "__name__", "") not in FREE:
            self._wait_for((args, kwargs))
        return func(*args, **(kwargs or {}))

    def _wait_for(self, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            if (groups := self._groups.get(address_of(value))) is not None:
                self._need(groups)
        elif isinstance(value, tuple | list):
            for each in value:
                self._wait_for(each)
        elif isinstance(value, dict):
            for each in value.values():
                self._wait_for(each)
