"""What an object holds by attribute names: its `__dict__` and its `__slots__`."""

import functools
import types
from typing import Any


def attributes_of(value: Any) -> dict[str, Any]:
    """Return an object's attributes by name, without running code of its class.

    Besides `__dict__` these are slots, and what classes written in C show as members: the function and the arguments of a
    `functools.partial`, the object of a bound method.
    """
    try:
        found = dict(object.__getattribute__(value, "__dict__"))
    except (AttributeError, TypeError):  # it has none
        found = {}
    kind: Any = type(value)
    for name, descriptor in _members(kind):
        try:
            found.setdefault(name, descriptor.__get__(value))
        except (AttributeError, TypeError):  # a slot that nothing was assigned to
            continue
    return found


@functools.lru_cache(maxsize=4096)
def _members(cls: type) -> tuple[tuple[str, Any], ...]:
    """Return the descriptors of slots by name; one of a base that a subclass defines again stands for the base's."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        for name, descriptor in vars(base).items():
            if isinstance(descriptor, types.MemberDescriptorType) and name != "__dict__":
                found.setdefault(name, descriptor)
    return tuple(found.items())
