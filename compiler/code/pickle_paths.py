"""Where in a pickled state a value stands, found without importing or calling anything that the pickle names."""

import io
import pickle
from collections.abc import Iterator
from typing import Any

from tidalctl.artifacts.state.readable_paths import item, readable
from tidalctl.artifacts.state.slots import Slot


def path_in_skeleton(pickled: bytes, value: bytes) -> str | None:
    """Return the path to the first text or bytes of a skeleton that hold a value: `state["client"].key`. None where none does."""
    skeleton = _Reader(io.BytesIO(pickled)).load()
    parts = [("state", skeleton.pop("state"))]
    parts += [(str(Slot(*slot)), content) for kind in ("bound", "filled") for slot, content in skeleton.pop(kind)]
    stack, seen = [*reversed(parts), ("", skeleton)], dict[int, Any]()
    while stack:
        path, part = stack.pop()
        if isinstance(part, str | bytes | bytearray):
            if value in (part.encode(errors="surrogateescape") if isinstance(part, str) else bytes(part)):
                return readable(path)
        elif id(part) not in seen:
            seen[id(part)] = part
            stack += reversed([(f"{path}{step}", inner) for step, inner in _parts(part)])
    return None


class _Object:
    """An object as the pickle describes it: what it is made from, its state, and what is put into it."""

    def __new__(cls, *arguments: Any, **keywords: Any) -> "_Object":
        made = super().__new__(cls)
        made.arguments = (*arguments, keywords)
        made.state = None
        made.items = []
        return made

    arguments: tuple[Any, ...]
    state: Any
    items: list[tuple[Any, Any]]

    def __init__(self, *arguments: Any, **keywords: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        self.items.append((len(self.items), value))


class _Reader(pickle._Unpickler):  # type: ignore[name-defined,misc]
    def find_class(self, module: str, name: str) -> type[_Object]:
        return type(name, (_Object,), {})

    def persistent_load(self, pid: Any) -> Any:
        return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from (("", key) for key in value)
        yield from ((item(key), part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{number}]", part) for number, part in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield from (("", part) for part in value)
    elif isinstance(value, _Object):
        yield from (("", part) for part in value.arguments)
        yield from ((item(key), part) for key, part in value.items)
        in_slots = isinstance(value.state, tuple) and len(value.state) == 2
        for held in value.state if isinstance(value.state, tuple) else (value.state,):
            if isinstance(held, dict) and (in_slots or held is value.state):
                yield from ((f".{name}", part) for name, part in held.items())
            else:
                yield "", held
