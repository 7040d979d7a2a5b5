"""What pickle drops in silence of what classes written in C keep to themselves, where no comparison of attributes would show it."""

import sys
from collections.abc import Hashable
from typing import Any

import torch

_BATCH = 1000  # how many items of a set pickle hands over at once
_NUMBERS = (int, float, complex)


def pickling_loss(value: Any) -> str | None:
    """Return what an object would lose by being pickled, in words, or None where nothing is known to be lost."""
    if isinstance(value, torch.Tensor):
        return _loss_of_tensor(value)
    return _loss_of_library_object(value)


def order_loss(value: set[Any] | frozenset[Any]) -> str | None:
    """Say that a set would give its items in another order once it is unpickled, or return None.

    Which order that is hangs on what was taken out of the set before. Asked of numbers only: texts have another in every process.
    """
    items = list(value)
    if not all(_alike_everywhere(item) for item in items):
        return None
    if isinstance(value, frozenset):
        again: Any = frozenset(items)
    else:
        again = set()
        for begin in range(0, len(items), _BATCH):
            again.update(items[begin : begin + _BATCH])
    same = all(one is other for one, other in zip(items, again, strict=True))
    return None if same else "its items would come in another order"


def _alike_everywhere(item: Hashable) -> bool:
    """Whether an item's hash is the same in every process."""
    return isinstance(item, _NUMBERS) or (isinstance(item, tuple) and all(map(_alike_everywhere, item)))


def _loss_of_tensor(tensor: torch.Tensor) -> str | None:
    if getattr(tensor, "_backward_hooks", None) or getattr(tensor, "_post_accumulate_grad_hooks", None):
        return "its hooks would be lost"
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        return "it is an inference tensor, made in an inference mode that ends before init is over"
    if tensor.is_nested and tensor.layout is torch.strided:
        return "it is a nested tensor, whose content no trace can follow"
    return None


def _loss_of_library_object(value: Any) -> str | None:
    """Return the loss of an object of NumPy or tokenizers, if they are imported."""
    tokenizers, numpy = sys.modules.get("tokenizers"), sys.modules.get("numpy")
    kind = getattr(tokenizers, "Tokenizer", None)
    if kind is not None and isinstance(value, kind) and getattr(value, "encode_special_tokens", False):
        return "its encode_special_tokens is set, which is not in its pickle"
    if numpy is None or not isinstance(value, numpy.ndarray):
        return None
    while value is not None:
        if isinstance(value, numpy.memmap) and value._mmap is not None and value.mode not in ("r", "c"):
            return f"it writes to a file (mode {value.mode})"
        value = getattr(value, "base", None)
    return None
