"""What a global holds, apart from the object that it is: other code may hold an object that init fills, and a restore fills it, too."""

import collections
from typing import Any

from tidalctl.artifacts.dropped import order_lost

_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
_SEQUENCES = (list, collections.deque)
_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_OWN_WAYS = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__slots__", "__setattr__", "__getattribute__")


def contents(value: Any) -> Any:
    """A plain copy of what it holds, for `fill`; None of what can't be filled: it is built or pickled in a way of its own."""
    if type(value) in _MAPPINGS:
        return dict(value)
    if type(value) in _SEQUENCES:
        return list(value)
    if type(value) is set:
        return None if order_lost(value) else list(value)  # in order
    return dict(vars(value)) if _is_plain(type(value)) else None


def fill(value: Any, held: Any) -> None:
    """Have it hold that, and nothing else."""
    if type(value) in (*_MAPPINGS, set):
        value.clear()
        value.update(held)
    elif type(value) in _SEQUENCES:
        value.clear()
        value.extend(held)
    else:
        vars(value).clear()
        vars(value).update(held)


def _is_plain(cls: type) -> bool:
    """Whether its objects are their attributes and nothing else."""
    written = all(base.__flags__ & _IN_PYTHON for base in cls.__mro__[:-1])
    return written and not any(name in vars(base) for base in cls.__mro__[:-1] for name in _OWN_WAYS)
