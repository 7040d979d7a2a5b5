"""What an object holds, apart from its identity: a restore fills the object that other code holds already, and makes no other."""

import collections
from typing import Any

import torch

from tidalctl.artifacts.dropped import order_lost

_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
_SEQUENCES = (list, collections.deque)
_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_OWN_WAYS = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__slots__", "__setattr__", "__getattribute__")


def contents_of(value: Any) -> dict[Any, Any] | list[Any] | None:
    """Return a plain copy of what an object holds, for `restore_contents`.

    None where the object can't be filled: its class is built in, or pickles or sets attributes in a way of its own.
    """
    if type(value) in _MAPPINGS:
        return dict(value)
    if type(value) in _SEQUENCES:
        return list(value)
    if type(value) is set:
        return None if order_lost(value) else list(value)  # in order
    if isinstance(value, torch.nn.Module) and vars(value).get("_compiled_call_impl") is not None:
        return None  # which pickle would drop
    return dict(vars(value)) if _is_plain(type(value)) else None


def restore_contents(target: Any, contents: Any) -> None:
    """Replace the contents of `target`, keeping its identity."""
    if type(target) in (*_MAPPINGS, set):
        target.clear()
        target.update(contents)
    elif type(target) in _SEQUENCES:
        target.clear()
        target.extend(contents)
    else:
        vars(target).clear()
        vars(target).update(contents)


def _is_plain(cls: type) -> bool:
    """Whether the objects of a class are their attributes and nothing else, as those of torch's modules are."""
    bases = cls.__mro__[:-1]
    written = all(base.__flags__ & _IN_PYTHON for base in bases)
    return written and not any(name in vars(base) for base in bases if base is not torch.nn.Module for name in _OWN_WAYS)
