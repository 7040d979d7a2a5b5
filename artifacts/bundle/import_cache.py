"""The import cache of a bundle: what imports compute anew in every process, always with the same result.

Three kinds. Source texts that `dataclasses` and `collections.namedtuple` compile, and patterns that `re` compiles: their outcome hangs
on the text and the interpreter alone. And what a library's function makes of the sources in a folder that it looks through: that hangs
on those files as well, whose sizes and digests are kept here. When they were written, the provenance says.

The file is a magic number, that of the interpreter's bytecode, the length of a summary (4 bytes, little-endian), the summary in
JSON, and what `marshal` (version 2) writes of three dicts, whose values are such bytes again: a start needs them one at a time. The
summary is for who looks at a bundle and does not trust it: `marshal` is not made for hostile bytes.
"""

import functools
import importlib.util
import marshal
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tidalctl.artifacts.distributions import Distribution, source_digest
from tidalctl.artifacts.errors import COMPILE_AGAIN, Corrupt

MAGIC = b"tidalrc3"
MODES = ("exec", "eval")
# functions, each cached by functools, which make plain data of what lies below the path that is their only argument
SCANS = {"transformers.utils.import_utils": "create_import_structure_from_path"}
CACHED: Any = type(functools.cache(abs))  # what functools makes of a function that it caches
_HEAD = MAGIC + importlib.util.MAGIC_NUMBER
_LENGTH = 4

Text = tuple[str, str]  # mode and source
Pattern = tuple[str | bytes, int]  # and its flags
Automaton = tuple[int, list[int], int, dict[str, int], tuple[str | None, ...]]  # what _sre.compile takes besides the pattern


Contents = Mapping[str, tuple[int, str]]  # of a folder: size and digest of sources below it. Names that end in "/" are folders
FolderContent = Mapping[Distribution | None, Contents]  # the same, by the distribution that sources belong to


class Scan(NamedTuple):
    """What `function` of `module` made of `path`, a Path where `pathlike`, by looking through `folder`.

    Both are relative to the module's sys.path entry.
    """

    module: str
    function: str
    path: str
    pathlike: bool
    made: Any
    folder: str


class CachedImports(NamedTuple):
    """What a start finds: bytecode by text, an Automaton by pattern, Scans by the module that has the function. See `load`."""

    texts: dict[Text, bytes]
    patterns: dict[Pattern, bytes]
    scans: dict[str, bytes]


def encode_import_cache(
    texts: Mapping[Text, bytes],
    patterns: Mapping[Pattern, Automaton],
    scans: Iterable[Scan],
    folders: Mapping[str, FolderContent],
) -> bytes:
    """The same bytes in every process, for the same texts (in bytecode), patterns, scans, and content of scanned folders."""
    found: dict[str, list[Scan]] = {}
    for scan in sorted(scans, key=lambda scan: scan[:4]):
        found.setdefault(scan.module, []).append(scan._replace(made=from_plain(to_plain(scan.made))))
    automata = {key: _dump(patterns[key]) for key in sorted(patterns, key=repr)}
    places = [_Place(module=module, path=scan.path) for module, known in found.items() for scan in known]
    summary = msgspec.json.encode(_Summary(texts=len(texts), patterns=len(patterns), scans=places))
    dumped = {module: _dump(_with_folders(known, folders)) for module, known in found.items()}
    body = _dump((dict(sorted(texts.items())), automata, dumped))
    return _HEAD + len(summary).to_bytes(_LENGTH, "little") + summary + body


def _with_folders(scans: Iterable[Scan], folders: Mapping[str, FolderContent]) -> tuple[Any, ...]:
    """Scans, and the content of the folders that they looked through."""
    contents = {
        folder: {its: dict(sorted(content[its].items())) for its in sorted(content, key=repr)}
        for folder, content in sorted(folders.items())
        if any(scan.folder == folder for scan in scans)
    }
    return [tuple(scan) for scan in scans], contents


def decode_import_cache(data: bytes, where: Path) -> CachedImports | None:
    """None where it is of another Python. Raises Corrupt. To be checked before it is decoded, as code is."""
    parts = _split(data, where)
    if parts is None:
        return None
    found = load(parts[1], where)
    if type(found) is not tuple or [type(part) for part in found] != [dict, dict, dict]:
        raise _corrupt(where, "it holds no three dicts")
    return CachedImports(*found)


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
        raise _corrupt(where, f"its summary is none ({error})") from None


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
        raise _corrupt(where, "it begins otherwise")
    if not data.startswith(_HEAD):
        return None
    start = len(_HEAD) + _LENGTH
    end = start + int.from_bytes(data[len(_HEAD) : start], "little")
    if end > len(data):
        raise _corrupt(where, "it ends too soon")
    view = memoryview(data)
    return view[start:end], view[end:]


def _corrupt(where: Path, why: str) -> Corrupt:
    return Corrupt(f"{where} is not what compile wrote: {why}", COMPILE_AGAIN)


def load(data: bytes | memoryview, where: Path) -> Any:
    """Return a value of the cache. Raises Corrupt."""
    try:
        return marshal.loads(data)
    except (EOFError, ValueError, TypeError, MemoryError) as error:
        raise _corrupt(where, str(error)) from None


def scans_in(known: bytes, where: Path) -> tuple[list[Scan], dict[str, FolderContent]]:
    """What `CachedImports.scans` holds for a module, and the content of the folders that were looked through. Raises Corrupt."""
    scans, folders = load(known, where)
    return [Scan(*scan) for scan in scans], folders


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


def scanned_folder(path: str) -> str:
    """The folder that a function looks through that is given this path."""
    return path if os.path.isdir(path) else os.path.dirname(path)


def read_contents(folder: str) -> Contents:
    """Of a folder ("/"), and of all folders and Python sources below it, with the caches of bytecode left out. Raises OSError."""
    return dict(sorted({"/": (0, ""), **dict(_walk(folder, ""))}.items()))


def _walk(folder: str, below: str) -> Iterator[tuple[str, tuple[int, str]]]:
    for name in names_in(f"{folder}/{below}"):
        if name.endswith("/"):
            yield below + name, (0, "")
            yield from _walk(folder, below + name)
        else:
            source = Path(folder, below, name).read_bytes()
            yield below + name, (len(source), source_digest(source))


def names_in(folder: str) -> set[str]:
    """The sources and folders right in a folder. Raises OSError."""
    with os.scandir(folder) as entries:
        found = {f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries if entry.name != CACHES}
    return {name for name in found if name.endswith(("/", ".py"))}


def names_of(content: Iterable[str]) -> dict[str, set[str]]:
    """The same of every folder of some content, by its name there."""
    names = list(content)
    found: dict[str, set[str]] = {name: set() for name in names if name.endswith("/")}
    for name in names:
        if name != "/":
            parent, _, last = name.rstrip("/").rpartition("/")
            found[f"{parent}/"].add(last + name[len(name.rstrip("/")) :])
    return found
