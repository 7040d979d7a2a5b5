"""Names by which the project's code keeps objects: globals of its modules, and attributes of its classes."""

import importlib
from typing import Any, NamedTuple


class Slot(NamedTuple):
    """A global of `module`, or an attribute of the class in it whose qualified name is `owner` (empty for a global)."""

    module: str
    owner: str
    name: str

    def __str__(self) -> str:
        return ".".join(filter(None, self))

    @property
    def place(self) -> tuple[Any, ...]:
        """The steps by which a skeleton finds the object that the slot holds."""
        first, *steps = (*self.owner.split("."), self.name) if self.owner else (self.name,)
        return (self.module, first, *(("attribute", step) for step in steps))


def read_slot(slot: Slot) -> Any:
    """Return what the slot holds, of a module that is imported if it isn't yet. Raises KeyError where there is nothing."""
    return vars(_owner(slot))[slot.name]


def bind_slot(slot: Slot, value: Any) -> None:
    """Bind the global or the class attribute to `value`."""
    setattr(_owner(slot), slot.name, value)


def _owner(slot: Slot) -> Any:
    owner: Any = importlib.import_module(slot.module)
    for name in slot.owner.split(".") if slot.owner else ():
        owner = vars(owner)[name]
    return owner
