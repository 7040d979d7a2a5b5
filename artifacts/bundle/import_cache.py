"""What imports work out anew in every process, always with the same outcome: a bundle holds it, and a start recalls it.

Three kinds. Source texts that `dataclasses` and `collections.namedtuple` compile, and patterns that `re` compiles: their outcome hangs
on the text and the interpreter alone. And what a library's function makes of the sources in a folder that it looks through: that hangs
on those files as well, whose sizes and times the provenance holds.

`recall.bin` is a magic number, that of the interpreter's bytecode, the length of a summary (4 bytes, little-endian), the summary in
JSON, and what `marshal` (version 2) writes of three dicts, whose values are such bytes again: a start needs them one at a time. The
summary is for who looks at a bundle and does not trust it: `marshal` is not made for hostile bytes.
"""

import functools
import importlib.util
import marshal
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tidalctl.artifacts.errors import COMPILE_AGAIN, Corrupt

MAGIC = b"tidalrc2"
MODES = ("exec", "eval")
# functions, each cached by functools, which make plain data of what lies below the path that is their only argument
SCANS = {"transformers.utils.import_utils": "create_import_structure_from_path"}
CACHED: Any = type(functools.cache(abs))  # what functools makes of a function that it caches
_HEAD = MAGIC + importlib.util.MAGIC_NUMBER
_LENGTH = 4

Text = tuple[str, str]  # mode and source
Pattern = tuple[str | bytes, int]  # and its flags
Automaton = tuple[int, list[int], int, dict[str, int], tuple[str | None, ...]]  # what _sre.compile takes besides the pattern


class Scan(NamedTuple):
    """What `function` of `module` made of `path`, which is relative to the module's sys.path entry, and a Path where `pathlike`."""

    module: str
    function: str
    path: str
    pathlike: bool
    made: Any


class Recalled(NamedTuple):
    """What a start finds: bytecode by text, an Automaton by pattern, Scans by the module that has the function. See `load`."""

    texts: dict[Text, bytes]
    patterns: dict[Pattern, bytes]
    scans: dict[str, bytes]


def encode_recalled(texts: Mapping[Text, bytes], patterns: Mapping[Pattern, Automaton], scans: Iterable[Scan]) -> bytes:
    """The same bytes in every process, for the same texts (in bytecode), patterns and scans."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for scan in sorted(scans, key=lambda scan: scan[:4]):
        found.setdefault(scan.module, []).append((*scan[:4], from_plain(to_plain(scan.made))))
    automata = {key: _dump(patterns[key]) for key in sorted(patterns, key=repr)}
    places = [_Place(module=module, path=scan[2]) for module, known in found.items() for scan in known]
    summary = msgspec.json.encode(_Summary(texts=len(texts), patterns=len(patterns), scans=places))
    body = _dump((dict(sorted(texts.items())), automata, {module: _dump(known) for module, known in found.items()}))
    return _HEAD + len(summary).to_bytes(_LENGTH, "little") + summary + body


def decode_recalled(data: bytes, where: Path) -> Recalled | None:
    """None where it is of another Python. Raises Corrupt. To be checked before it is decoded, as code is."""
    parts = _split(data, where)
    if parts is None:
        return None
    found = load(parts[1], where)
    if type(found) is not tuple or [type(part) for part in found] != [dict, dict, dict]:
        raise _no_recall(where, "it holds no three dicts")
    return Recalled(*found)


def summary_of(data: bytes, where: Path) -> Any:
    """How many "texts" and "patterns" there are, and the "scans" by "module" and "path"; None where it is of another Python.

    Nothing else is decoded. Raises Corrupt.
    """
    parts = _split(data, where)
    if parts is None:
        return None
    try:
        return msgspec.to_builtins(msgspec.json.decode(bytes(parts[0]), type=_Summary))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _no_recall(where, f"its summary is none ({error})") from None


class _Place(msgspec.Struct):
    module: str
    path: str


class _Summary(msgspec.Struct):
    texts: int
    patterns: int
    scans: list[_Place]


def _split(data: bytes, where: Path) -> tuple[memoryview, memoryview] | None:
    """Summary and body."""
    if not data.startswith(MAGIC):
        raise _no_recall(where, "it begins otherwise")
    if not data.startswith(_HEAD):
        return None
    start = len(_HEAD) + _LENGTH
    end = start + int.from_bytes(data[len(_HEAD) : start], "little")
    if end > len(data):
        raise _no_recall(where, "it ends too soon")
    view = memoryview(data)
    return view[start:end], view[end:]


def _no_recall(where: Path, why: str) -> Corrupt:
    return Corrupt(f"{where} is not what compile wrote: {why}", COMPILE_AGAIN)


def load(data: bytes | memoryview, where: Path) -> Any:
    """A value in what was recalled. Raises Corrupt."""
    try:
        return marshal.loads(data)
    except (EOFError, ValueError, TypeError, MemoryError) as error:
        raise _no_recall(where, str(error)) from None


def scans_in(known: bytes, where: Path) -> list[Scan]:
    """What `Recalled.scans` holds for a module. Raises Corrupt."""
    return [Scan(*scan) for scan in load(known, where)]


def _dump(value: Any) -> bytes:
    return marshal.dumps(value, 2)  # later versions write how many references there are


# -- plain data, as JSON and marshal know it alike


class NotPlain(ValueError):
    """A value that is more than dicts, lists, tuples, sets, strings and numbers."""


def to_plain(value: Any) -> Any:
    """The value as lists that begin with their kind, in one order for equal sets and dicts. Raises NotPlain."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is dict:
        items = [[to_plain(key), to_plain(item)] for key, item in value.items()]
        return ["dict", *sorted(items, key=repr)]
    if type(value) in (set, frozenset):
        return [type(value).__name__, *sorted(map(to_plain, value), key=repr)]
    if type(value) in (list, tuple):
        return [type(value).__name__, *map(to_plain, value)]
    raise NotPlain(f"a {type(value).__name__}")


def from_plain(value: Any) -> Any:
    """What to_plain was given, with dicts in another order perhaps. Raises NotPlain."""
    if not isinstance(value, list | tuple):
        return value
    kind, *items = value
    if kind == "dict":
        return {from_plain(key): from_plain(item) for key, item in items}
    made = _KINDS.get(kind)
    if made is None:
        raise NotPlain(f"{kind!r}")
    return made(map(from_plain, items))


_KINDS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}

# -- what a scan hangs on

CACHES = "__pycache__"
# by path below the folder, that of folders ending in "/": size (0 of folders) and time in ns
Stamp = Mapping[str, tuple[int, int]]


def scanned_folder(path: str) -> str:
    """The folder that a function looks through that is given this path."""
    return path if os.path.isdir(path) else os.path.dirname(path)


def read_stamp(folder: str) -> Stamp:
    """Of a folder, and of all folders and Python sources below it, with the caches of bytecode left out. Raises OSError."""
    found = {"/": (0, os.stat(folder).st_mtime_ns)}
    for name, entry in _walk(folder, ""):
        status = entry.stat()
        if stat.S_ISDIR(status.st_mode):
            found[f"{name}/"] = (0, status.st_mtime_ns)
        elif name.endswith(".py"):
            found[name] = (status.st_size, status.st_mtime_ns)
    return dict(sorted(found.items()))


def _walk(folder: str, below: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    for name, entry in _entries(folder, below):
        yield name, entry
        if entry.is_dir():
            yield from _walk(folder, f"{name}/")


def _entries(folder: str, below: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What lies right in a folder below the stamped one, by its path from there."""
    with os.scandir(f"{folder}/{below}") as entries:
        for entry in entries:
            if entry.name != CACHES:
                yield below + entry.name, entry


def is_as_stamped(folder: str, stamp: Stamp) -> bool:
    """Whether no source below a folder has changed, come or gone since it was stamped. Bytecode that was cached there is none."""
    try:
        for name, (size, time_ns) in stamp.items():
            status = os.stat(f"{folder}/{name}")
            if not name.endswith("/"):
                if (status.st_size, status.st_mtime_ns) != (size, time_ns) or not stat.S_ISREG(status.st_mode):
                    return False
            elif status.st_mtime_ns != time_ns and not _holds_the_same(folder, name.lstrip("/"), stamp):
                return False
    except OSError:
        return False
    return True


def _holds_the_same(folder: str, below: str, stamp: Stamp) -> bool:
    """Whether a folder has the folders and sources that it had, whatever else was written into it."""
    here = {f"{name}/" if entry.is_dir() else name for name, entry in _entries(folder, below)}
    known = {name for name in stamp if name != "/" and os.path.dirname(name.rstrip("/")) == below.rstrip("/")}
    return {name for name in here if name.endswith(("/", ".py"))} == known
