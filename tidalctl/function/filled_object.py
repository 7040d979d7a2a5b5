"""A method as init: its state is what it returns and the attributes of its object, which a start restores in place.

A provider sees an ordinary function that returns this state. In place of the object the function takes a description of it: its class,
and its attributes before the call. As any argument of init, the description must be the traced one for the state to be used.
"""

import functools
import threading
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from tidalctl.function.init_mark import Init

Provider = Callable[[Init, tuple[Any, ...], dict[str, Any]], Any]

_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE
TARGET = (__name__, "target")  # where a skeleton finds the object that is filled, as if it were a global of this module
RETURNED = "<returned>"  # the item of a state, besides the attributes, that holds what the method returned, if anything
_filling = threading.local()


def __getattr__(name: str) -> Any:
    """Return the object that this thread is filling, for a skeleton that asks for it by `TARGET`."""
    if name == "target" and hasattr(_filling, "target"):
        return _filling.target
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def filling_objects(provider: Provider) -> Provider:
    """Return a provider that has calls of methods answered by `provider`, and their objects filled."""

    def answer(mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        name = mark.function.__qualname__.rpartition("<locals>.")[2]
        if "." in name:
            return _call_method(mark, provider, arguments, keywords)
        return provider(mark, arguments, keywords)

    return answer


def _call_method(mark: Init, provider: Provider, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Let `provider` answer a call of a method, and fill its object."""
    function = mark.function
    owner = _owner(function, arguments)
    if owner is None:  # a static method
        return provider(mark, arguments, keywords)
    target, *rest = arguments

    @functools.wraps(function)
    def run(description: Any, *arguments: Any, **keywords: Any) -> Any:
        returned = function(target, *arguments, **keywords)
        if owner is target:
            return returned
        return vars(target) if returned is None else {**vars(target), RETURNED: returned}

    if owner is target:  # a class method: what it sets is an attribute of a class, as any function might set
        return provider(Init(run, mark.static), (f"{owner.__module__}:{owner.__qualname__}", *rest), keywords)
    if not _is_its_attributes(type(target)):
        return provider(mark, arguments, keywords)
    before, _filling.target = getattr(_filling, "target", None), target
    try:
        state = provider(Init(run, mark.static, target), (_description(target), *rest), keywords)
        attributes = {name: value for name, value in state.items() if name != RETURNED}
        vars(target).clear()
        vars(target).update(attributes)
        return state.get(RETURNED)
    finally:
        _filling.target = before


def _owner(function: Any, arguments: tuple[Any, ...]) -> Any:
    """Return the class that defines a method, as its first argument tells: an object of the class, or the class; None if neither."""
    name = function.__qualname__.rpartition(".")[0]
    first = arguments[0] if arguments else None
    for cls in (*(first.__mro__ if isinstance(first, type) else ()), *type(first).__mro__):
        if (cls.__module__, cls.__qualname__) == (function.__module__, name):
            return first if isinstance(first, type) and cls in first.__mro__ else cls
    return None


def _is_its_attributes(cls: type) -> bool:
    """Whether objects of a class are the attributes in their `__dict__` and nothing else."""
    bases = cls.__mro__[:-1]
    return all(base.__flags__ & _IN_PYTHON and not vars(base).get("__slots__") for base in bases)


def _description(target: Any) -> dict[str, Any]:
    """Return the class of an object and its attributes: JSON and paths as they are, of anything else a digest."""
    attributes = {name: value if _is_plain(value) else {"digest": _digest(value)} for name, value in vars(target).items()}
    return {"class": f"{type(target).__module__}:{type(target).__qualname__}", "attributes": attributes}


def _is_plain(value: Any) -> bool:
    from tidalctl.function.event_probe import digest_of_json

    return isinstance(value, PurePath) or digest_of_json(value) is not None


def _digest(value: Any) -> Any:
    """Return a digest of an object; what no JSON can hold where it can't be pickled, so that no digest of the arguments is made."""
    from tidalctl.artifacts.state.skeleton import skeleton_digest  # which imports torch, as any such object's function has

    return skeleton_digest(value) or object()
