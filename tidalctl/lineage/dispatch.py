"""The dispatch mode that ours are: one that does not import torch's compiler.

Torch wraps the `__torch_dispatch__` of every mode so that the compiler leaves it alone, and imports the compiler for that with the
first operator: 800 modules and a second, in a process that may never compile anything, and whose imports we are about to list.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


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
