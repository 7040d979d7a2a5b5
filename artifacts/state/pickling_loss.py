"""What pickle drops in silence: of such objects a restored state would have less than init gave it."""

import sys
from collections.abc import Hashable
from typing import Any

import torch

_BATCH = 1000  # how many items of a set pickle hands over at once
_NUMBERS = (int, float, complex)


def dropped(value: Any) -> str:
    """What would be lost of an object, in words; empty where nothing is known to be."""
    if isinstance(value, torch.Tensor):
        return _of_tensor(value)
    if isinstance(value, torch.nn.Module):
        return "it is compiled by its compile(), which no snapshot holds" if _compiled(value) else ""
    if isinstance(value, torch.optim.Optimizer):
        hooks = sorted(
            name for name, held in vars(value).items() if name.startswith("_optimizer_") and "hooks" in name and held
        )
        return f"its {hooks[0].removeprefix('_optimizer_')} would be lost" if hooks else ""
    return _of_library(value)


def order_lost(value: set[Any] | frozenset[Any]) -> str:
    """Whether a set goes through its items in another order once it is unpickled, which hangs on what was taken out of it before.

    Only of numbers: the order of texts is another in every process anyhow.
    """
    items = list(value)
    if not all(_alike_everywhere(item) for item in items):
        return ""
    if isinstance(value, frozenset):
        again: Any = frozenset(items)
    else:
        again = set()
        for begin in range(0, len(items), _BATCH):
            again.update(items[begin : begin + _BATCH])
    same = all(one is other for one, other in zip(items, again, strict=True))
    return "" if same else "its items would come in another order"


def _alike_everywhere(item: Hashable) -> bool:
    """Whether an item's hash is the same in every process."""
    return isinstance(item, _NUMBERS) or (isinstance(item, tuple) and all(map(_alike_everywhere, item)))


def _of_tensor(tensor: torch.Tensor) -> str:
    if getattr(tensor, "_backward_hooks", None) or getattr(tensor, "_post_accumulate_grad_hooks", None):
        return "its hooks would be lost"
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        return "it is an inference tensor, made in an inference mode that ends before init is over"
    if tensor.is_nested and tensor.layout is torch.strided:
        return "it is a nested tensor, whose content no trace can follow"
    return ""


def _compiled(module: torch.nn.Module) -> bool:
    return vars(module).get("_compiled_call_impl") is not None


def _of_library(value: Any) -> str:
    """Of libraries' objects; nothing is imported for that."""
    tokenizers, numpy = sys.modules.get("tokenizers"), sys.modules.get("numpy")
    kind = getattr(tokenizers, "Tokenizer", None)
    if kind is not None and isinstance(value, kind) and getattr(value, "encode_special_tokens", False):
        return "its encode_special_tokens is set, which is not in its pickle"
    if numpy is None or not isinstance(value, numpy.ndarray):
        return ""
    while value is not None:
        if isinstance(value, numpy.memmap) and value._mmap is not None and value.mode not in ("r", "c"):
            return f"it writes to a file (mode {value.mode})"
        value = getattr(value, "base", None)
    return ""
