"""An event that notes what is read of it, so that a state can be reused for events that agree on what init saw."""

import copy
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Any

from tidalctl.function.context import context_argument
from tidalctl.function.project_places import marked, project_marks

ABSENT = {"absent": True}  # digested for a key that was asked for and not there


def digest_value(value: Any) -> str:
    """A digest of a JSON value, the order of its keys included: code that iterates a dict sees the order."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class EventProbe(dict[str, Any]):
    """A dict that records the keys read. Anything but reading single keys counts as reading, or changing, all of it.

    The values lie beside the dict that C code sees, which is empty: code that reads past Python's methods then fails or builds another
    state than the plain run, and either is noticed. They are the event's own, so that what is written to the probe is written there.
    """

    def __init__(self, event: dict[str, Any], init: CodeType | None = None) -> None:
        super().__init__()
        self._values = event
        self._init = init
        self.first_line: int | None = None  # of `init`, where it first came to a read
        self.reads: dict[str, str] = {}
        self.whole = False

    def _note_line(self) -> None:
        if self.first_line is None and self._init is not None:
            frame: FrameType | None = sys._getframe(1)
            while frame is not None and frame.f_code is not self._init:
                frame = frame.f_back
            self.first_line = frame.f_lineno if frame is not None else None

    def _read(self, key: Any) -> None:
        self._note_line()
        if isinstance(key, str) and key not in self.reads:
            self.reads[key] = digest_value([self._values[key]] if key in self._values else ABSENT)

    def __getitem__(self, key: Any) -> Any:
        self._read(key)
        return self._values[key]

    def get(self, key: Any, default: Any = None) -> Any:
        self._read(key)
        return self._values.get(key, default)

    def __contains__(self, key: Any) -> bool:
        self._read(key)
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        self._note_line()
        self.whole = True
        return iter(self._values)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        self._note_line()
        self.whole = True
        return dict, (self._values,)


def _whole(name: str) -> Any:
    def method(self: EventProbe, *arguments: Any, **keywords: Any) -> Any:
        self._note_line()
        self.whole = True
        return getattr(self._values, name)(*arguments, **keywords)

    method.__name__ = name
    return method


_READS_ALL = ("keys", "items", "values", "copy", "__len__", "__eq__", "__ne__", "__or__", "__ror__", "__repr__", "__reversed__")
_CHANGES = ("pop", "popitem", "update", "setdefault", "clear", "__setitem__", "__delitem__", "__ior__")
for _name in (*_READS_ALL, *_CHANGES):
    setattr(EventProbe, _name, _whole(_name))

EventProbe.__hash__ = None  # type: ignore[assignment]


class Written:
    """Made before a call of init, it says afterwards what of the call's arguments is otherwise, in words."""

    def __init__(
        self, event: dict[str, Any], arguments: tuple[Any, ...], keywords: dict[str, Any], roots: Sequence[str] = ()
    ) -> None:
        self.arguments = arguments_digest(event, arguments, keywords, roots)  # as they were
        self._roots = roots
        self.whole = digest_of_json(event)
        self._event, self._call = event, (arguments, keywords)
        self._items = list(event.items())
        try:
            self._copy: dict[str, Any] | None = copy.deepcopy(event)
        except Exception:  # noqa: BLE001 - the handler may put anything into it, and whatever that raises
            self._copy = None

    def what(self) -> str:
        if not self._untouched():
            return "the event"
        return "an argument" if arguments_digest(self._event, *self._call, self._roots) != self.arguments else ""

    def put_back(self) -> None:
        """The event is as it was."""
        if not self._untouched():
            self._event.clear()
            self._event.update(self._items if self._copy is None else self._copy)

    def _untouched(self) -> bool:
        """Whether the event has the same objects in the same order, and those hold what they held."""
        items = list(self._event.items())
        if [(key, id(value)) for key, value in items] != [(key, id(value)) for key, value in self._items]:
            return False
        if self.whole:
            return digest_of_json(self._event) == self.whole
        try:
            return bool(self._event == self._copy)
        except Exception:  # noqa: BLE001 - of whatever else it holds: a tensor has no truth
            return False


def digest_of_json(value: Any) -> str | None:
    """Return the digest of a value as it is now, or None where it is no JSON."""
    try:
        return digest_value(value)
    except (TypeError, ValueError):
        return None


def agrees(event: Any, reads: dict[str, str], whole: str) -> bool:
    """Whether an event is, in everything that init saw of the traced one, the same."""
    if not isinstance(event, dict):
        return False
    if whole and digest_value(event) != whole:
        return False
    return all(digest_value([event[key]] if key in event else ABSENT) == seen for key, seen in reads.items())


def arguments_digest(event: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], roots: Sequence[str] = ()) -> str | None:
    """Return a digest of how init was called, with a mark for the event itself.

    None where an argument is neither JSON (or a tuple), nor a path, nor a handler's context. An object of a subclass is neither.

    `roots` are folders in which the project, or its copy, lies: paths in one of them count as what they are to it.
    """
    marks = project_marks(roots)

    def shown(value: Any) -> Any:
        if value is event:
            return {"the event": True}
        if (context := context_argument(value)) is not None:
            return {"context": context}
        return {"path": marked(os.fspath(value), marks)} if isinstance(value, PurePath) else {"value": relative(value)}

    def relative(value: Any) -> Any:
        if type(value) is str:
            return marked(value, marks)
        if type(value) in (list, tuple):
            items = [relative(item) for item in value]
            return items if type(value) is list else {"tuple": items}
        if type(value) is dict and all(type(key) is str for key in value):
            return {"dict": [[key, relative(item)] for key, item in value.items()]}
        if value is None or type(value) in (bool, int, float):
            return value
        raise TypeError(f"a {type(value).__qualname__} is not JSON")

    try:
        return digest_value([[shown(value) for value in arguments], {key: shown(value) for key, value in keywords.items()}])
    except (TypeError, ValueError):
        return None
