"""An event that notes what is read of it, so that a state can be reused for events that agree on what init saw."""

from collections.abc import Iterator
from typing import Any

from tidalctl.artifacts.records import digest_json

_ABSENT = {"absent": True}  # digested for a key that was asked for and not there


class EventProbe(dict[str, Any]):
    """A dict that records the keys read. Anything but reading single keys counts as reading, or changing, all of it."""

    def __init__(self, event: dict[str, Any]) -> None:
        super().__init__(event)
        self.reads: dict[str, str] = {}
        self.whole = False

    def _read(self, key: Any) -> None:
        if isinstance(key, str) and key not in self.reads:
            present = super().__contains__(key)
            self.reads[key] = digest_json([super().__getitem__(key)]) if present else digest_json(_ABSENT)

    def __getitem__(self, key: Any) -> Any:
        self._read(key)
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        self._read(key)
        return super().get(key, default)

    def __contains__(self, key: Any) -> bool:
        self._read(key)
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        self.whole = True
        return super().__iter__()


def _whole(name: str) -> Any:
    inherited = getattr(dict, name)

    def method(self: EventProbe, *arguments: Any, **keywords: Any) -> Any:
        self.whole = True
        return inherited(self, *arguments, **keywords)

    method.__name__ = name
    return method


_READS_ALL = ("keys", "items", "values", "copy", "__len__", "__eq__", "__ne__", "__or__", "__ror__", "__repr__", "__reversed__")
_CHANGES = ("pop", "popitem", "update", "setdefault", "clear", "__setitem__", "__delitem__", "__ior__")
for _name in (*_READS_ALL, *_CHANGES):
    setattr(EventProbe, _name, _whole(_name))


def _reduce(self: EventProbe, protocol: int) -> tuple[Any, ...]:
    self.whole = True
    return dict, (dict(dict.items(self)),)


EventProbe.__reduce_ex__ = _reduce  # type: ignore[method-assign,assignment]
EventProbe.__hash__ = None  # type: ignore[assignment]


def agrees(event: Any, reads: dict[str, str], whole: str) -> bool:
    """Whether an event is, in everything that init saw of the traced one, the same."""
    if not isinstance(event, dict):
        return False
    if whole and digest_json(event) != whole:
        return False
    return all(digest_json([event[key]] if key in event else _ABSENT) == seen for key, seen in reads.items())


def arguments_digest(event: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> str | None:
    """A digest of how init was called, with the event itself standing as a mark. None where an argument is not JSON."""

    def shown(value: Any) -> Any:
        return {"the event": True} if value is event else {"value": value}

    try:
        return digest_json([[shown(value) for value in arguments], {key: shown(value) for key, value in keywords.items()}])
    except (TypeError, ValueError):
        return None
