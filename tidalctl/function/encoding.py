"""What a handler may give that is no JSON: told with its path and a remedy, or converted, as `--encode` asks.

Which library a value is of is told by the modules that the function itself has imported; none is imported for it. The table in
docs/handler.md lists the kinds; a test compares the two. The plain arm of a bench loads this module alone.
"""

import base64
import dataclasses
import datetime
import decimal
import enum
import json
import math
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import PurePath
from typing import Any, NamedTuple, NoReturn

ALWAYS = "return or yield strings, numbers, lists, dicts"
OR_ENCODE = "or trace with --encode, which converts it"


class Kind(NamedTuple):
    """A kind of values: in words, what to write in the function instead, and what a value becomes, which may need converting in turn.

    `convert` is None where `--encode` does not convert it.
    """

    words: str
    remedy: str
    convert: Callable[[], Any] | None = None


def encoded(value: Any, where: str = "") -> Any:
    """Return a value as JSON has it, converted by the table. Raises FunctionError where something in it can't be.

    `where` names the value in messages, where it is one of several.
    """
    return _Walk(where, convert=True).json(value, "")


def refuse(value: Any, where: str = "") -> None:
    """Raise FunctionError with the path to the first part of a value that is no JSON, if there is one, and with its remedy."""
    _Walk(where, convert=False).json(value, "")


class _Walk:
    """One pass over a value, in the order in which it is written."""

    def __init__(self, where: str, *, convert: bool) -> None:
        self._where = where
        self._convert = convert
        self._above: set[int] = set()  # identities of the containers around what is looked at

    def json(self, value: Any, path: str) -> Any:
        """Return a part as JSON has it."""
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                self._fail(path, Kind("a string with half a character", '.encode("utf-8", "replace").decode()'))
            return value
        if isinstance(value, float) and not math.isfinite(value):
            self._fail(path, Kind("NaN" if math.isnan(value) else "an infinity", "return None, or a string, in its place"))
        if value is None or isinstance(value, bool | int | float):
            return value
        if id(value) in self._above:
            self._fail(path, Kind(f"a {type(value).__name__} that holds itself", ALWAYS))
        self._above.add(id(value))
        try:
            return self._container(value, path)
        finally:
            self._above.discard(id(value))

    def _container(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {self._key(key, path): self.json(item, path + step(key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(item, f"{path}[{index}]") for index, item in enumerate(value)]
        kind = kind_of(value)
        if not self._convert or kind.convert is None:
            self._fail(path, kind)
        made = self._converted(kind, path)
        if type(made) is type(value):  # of NumPy's longdouble, say
            self._fail(path, Kind(f"{kind.words}, which can't be converted", ALWAYS))
        found = self.json(made, path)
        return sorted(found, key=_order) if isinstance(value, Set) else found

    def _key(self, key: Any, path: str) -> Any:
        if key is None or isinstance(key, str | bool | int | float):
            return self.json(key, path + step(key))
        kind = kind_of(key)
        made = self._converted(kind, path)
        fits = isinstance(made, str | bool | int | float)
        if not fits or not self._convert:
            self._fail(
                path, Kind(f"a dict with {kind.words} as a key", "make its keys strings", kind.convert if fits else None)
            )
        return made

    def _converted(self, kind: Kind, path: str) -> Any:
        """Return what a value of a kind becomes by one step of the table; None where there is none."""
        try:
            return kind.convert() if kind.convert is not None else None
        except Exception as error:  # noqa: BLE001 - a library's own conversion may raise anything, and is told
            self._fail(path, Kind(f"{kind.words}, which can't be converted ({type(error).__name__}: {error})", ALWAYS))

    def _fail(self, path: str, kind: Kind) -> NoReturn:
        from tidalctl.artifacts.errors import FunctionError

        place = "".join(f"{part}: " for part in (self._where, path.removeprefix(".")) if part)
        hint = kind.remedy if self._convert or kind.convert is None else f"{kind.remedy}; {OR_ENCODE}"
        raise FunctionError(f"the handler gave a value that is not JSON: {place}{kind.words}", hint)


def step(key: Any) -> str:
    """Return how a path goes on to the item of a dict: `.score`, or `['top 5']`."""
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"


def _order(value: Any) -> tuple[bool, float, str]:
    """Sort what stood in a set: numbers by size, then anything else by its text."""
    number = isinstance(value, int | float)
    return not number, value if number else 0, json.dumps(value, sort_keys=True)


def kind_of(value: Any) -> Kind:
    """Return the kind of a value that is neither JSON nor a dict, a list or a tuple."""
    return _of_a_library(value) or _of_python(value) or Kind(_named(type(value)), ALWAYS)


def _of_a_library(value: Any) -> Kind | None:
    if _is(value, "torch", "Tensor"):
        return Kind(f"a {str(value.dtype).removeprefix('torch.')} tensor", ".item() or .tolist()", value.tolist)
    if _is(value, "numpy", "ndarray"):
        return Kind(f"a NumPy array of {value.dtype}", ".tolist()", _with_moments(value).tolist)
    if _is(value, "numpy", "generic"):
        return Kind(f"a NumPy scalar ({value.dtype})", ".item()", _with_moments(value).item)
    if _is(value, "pydantic", "BaseModel"):
        words = f"a pydantic model ({type(value).__name__})"
        if hasattr(value, "model_dump"):
            return Kind(words, '.model_dump(mode="json")', lambda: value.model_dump(mode="json"))
        return Kind(words, "json.loads(model.json())", lambda: json.loads(value.json()))
    return None


def _is(value: Any, module: str, name: str) -> bool:
    """Whether a value is of a class of a library, which then has been imported."""
    return isinstance(value, getattr(sys.modules.get(module), name, ()))


def _of_python(value: Any) -> Kind | None:
    words = _named(type(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        return Kind(f"a dataclass ({type(value).__name__})", "dataclasses.asdict()", lambda: fields)
    if isinstance(value, enum.Enum):
        return Kind(f"an enumeration's member ({type(value).__name__})", ".value", lambda: value.value)
    if isinstance(value, bytes | bytearray | memoryview):
        return Kind(words, "base64.b64encode().decode(), or .decode() of text", lambda: base64.b64encode(value).decode())
    if isinstance(value, datetime.date | datetime.time):
        return Kind(words, ".isoformat()", value.isoformat)
    if isinstance(value, datetime.timedelta):
        return Kind(words, ".total_seconds()", value.total_seconds)
    if isinstance(value, decimal.Decimal | uuid.UUID | PurePath):
        return Kind(words, "str() of it", lambda: str(value))
    if isinstance(value, complex):
        return Kind(words, "[z.real, z.imag]", lambda: [value.real, value.imag])
    if isinstance(value, Set):
        return Kind(words, "sorted() of it", lambda: list(value))
    if isinstance(value, Mapping):
        return Kind(words, "dict() of it", lambda: dict(value))
    if isinstance(value, Sequence):
        return Kind(words, "list() of it", lambda: list(value))
    return None


def _with_moments(value: Any) -> Any:
    """Return a NumPy value whose dates and spans, if it is of them, come out as Python's: they do of microseconds."""
    return value.astype(f"{value.dtype.kind}8[us]") if value.dtype.kind in "Mm" else value


def _named(kind: type) -> str:
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
