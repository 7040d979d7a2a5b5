"""The code pack: the bytecode of the modules that a function imports, in the order of their imports, in one file.

`code.pack` is a magic number, the length of the index (8 bytes, little endian), the index as JSON, and then segments: the bytecode of
some modules each, as `marshal` writes one tuple of it, so that names which modules share are made once. Segments are what is read,
checked and decoded at a time: the manifest holds the digest of everything before the first one, and the index holds theirs.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from tidalctl.artifacts.errors import COMPILE_AGAIN, Corrupt, NewerSchema, NotAnArtifact, OlderSchema, PathEscapes, Truncated
from tidalctl.artifacts.hashing import code_hasher
from tidalctl.artifacts.records import Record

MAGIC = b"tidalpck"
SCHEMA = 3
_HEAD = len(MAGIC) + 8


class Segment(Record, frozen=True, array_like=True):
    """Bytes of the file, counted from the end of the index."""

    offset: int
    length: int
    blake3: str


class PackedModule(Record, frozen=True, array_like=True):
    """One module, and where its bytecode is: at `place` of its segment's tuple.

    `file` is the source, relative to its sys.path entry, or `code/…` for the project's own; `size` is the source's, in bytes.
    `digest` is of the source (see `source_digest`), and `record` the number in `PackIndex.records` of the distribution that it belongs
    to, or -1. `late` says that the handler imports it, and that it is no code of the project; `pure`, that torch itself imports it, of
    a distribution in which, and in whose requirements, there is no shared library.
    """

    name: str
    file: str
    package: bool
    size: int
    segment: int = 0
    place: int = 0
    late: bool = False
    pure: bool = False
    digest: str = ""
    record: int = -1

    @property
    def own(self) -> bool:
        """Whether it is the project's, and its source lies in the bundle."""
        return self.file != file_of(self.name, self.package)


class PackIndex(Record, frozen=True):
    """What is where. `magic` (hexadecimal) and `optimize` are those of the interpreter whose bytecode it is.

    `records` gives distributions that packed modules belong to: the name of the folder of their metadata, and the digest of their rows.
    """

    schema: int
    magic: str
    optimize: int
    segments: tuple[Segment, ...]
    modules: tuple[PackedModule, ...]
    records: tuple[tuple[str, str], ...] = ()


def write_pack(
    path: Path,
    magic: str,
    optimize: int,
    parts: Iterable[tuple[Sequence[PackedModule], bytes]],
    records: Sequence[tuple[str, str]] = (),
) -> None:
    """Write a pack of segments: modules, and the bytes of their tuple. Where a module lies is filled into its record."""
    segments: list[Segment] = []
    bodies: list[bytes] = []
    placed: list[PackedModule] = []
    for modules, body in parts:
        for place, module in enumerate(modules):
            placed.append(msgspec.structs.replace(module, segment=len(segments), place=place))
        offset = segments[-1].offset + segments[-1].length if segments else 0
        segments.append(Segment(offset=offset, length=len(body), blake3=_digest(body)))
        bodies.append(body)
    listed = PackIndex(
        schema=SCHEMA,
        magic=magic,
        optimize=optimize,
        segments=tuple(segments),
        modules=tuple(placed),
        records=tuple(records),
    )
    index = msgspec.json.encode(listed)
    with open(path, "wb") as file:
        file.write(MAGIC + len(index).to_bytes(8, "little") + index)
        file.writelines(bodies)


def _digest(body: bytes) -> str:
    return code_hasher().update(body).hexdigest()


def head_digest(path: Path) -> str:
    """The sha256 of what stands before the first segment of a pack: magic number, length and index."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        return hashlib.sha256(head + file.read(int.from_bytes(head[len(MAGIC) :], "little"))).hexdigest()


class PackFile:
    """A pack, open for reading. Its index is checked against `digest`, which the manifest holds; segments are when they are read.

    Raises Truncated, Corrupt, NotAnArtifact, NewerSchema or PathEscapes.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.index, self._begin = self._read_index(digest)
        except BaseException:  # raised again: an interrupt, too, must not leave the file open
            self.close()
            raise

    def _read_index(self, digest: str) -> tuple[PackIndex, int]:
        path, size = self.path, os.fstat(self._handle).st_size
        head = os.pread(self._handle, _HEAD, 0)
        if head[: len(MAGIC)] != MAGIC[: len(head)]:
            raise NotAnArtifact(f"{path} is not a code pack", COMPILE_AGAIN)
        length = int.from_bytes(head[len(MAGIC) :], "little")
        if len(head) < _HEAD or length > size - _HEAD:
            raise Truncated(f"{path} ends before its index does", COMPILE_AGAIN)
        text = _read(self._handle, length, _HEAD)
        if hashlib.sha256(head + text).hexdigest() != digest:
            raise Corrupt(f"{path} is not what compile wrote (the digest of its index differs)", COMPILE_AGAIN)
        index = decode_index(text, path)
        begin = _HEAD + length
        end = begin + sum(segment.length for segment in index.segments)
        if size != end:
            kind = Truncated if size < end else Corrupt
            raise kind(f"{path} has {size} bytes, {end} were written", COMPILE_AGAIN)
        return index, begin

    def read(self, number: int, verify: bool = True) -> bytes:
        """A segment, as bytes of this process's own. Raises Truncated or Corrupt where it is not what compile wrote."""
        segment = self.index.segments[number]
        try:
            data = _read(self._handle, segment.length, self._begin + segment.offset)
        except OSError as error:
            raise Corrupt(f"{self.path} could not be read: {error}", COMPILE_AGAIN) from None
        if len(data) < segment.length:
            raise Truncated(f"{self.path} ends before its segment {number} does", COMPILE_AGAIN)
        if verify and _digest(data) != segment.blake3:
            raise Corrupt(f"{self.path} is not what compile wrote (the blake3 of its segment {number} differs)", COMPILE_AGAIN)
        return data

    def close(self) -> None:
        os.close(self._handle)


def _read(handle: int, length: int, offset: int) -> bytes:
    """`length` bytes from `offset`, in one call as a rule; fewer where the file ends before."""
    data = os.pread(handle, length, offset)
    while len(data) < length and (more := os.pread(handle, length - len(data), offset + len(data))):
        data += more
    return data


def decode_index(text: bytes, path: Path) -> PackIndex:
    """The index in a pack, with every offset in it checked. Raises NewerSchema, Corrupt or PathEscapes."""
    try:
        schema = msgspec.json.decode(text, type=_Versioned).schema
        if schema > SCHEMA:
            raise NewerSchema(f"{path} has code pack schema {schema}; this tidalctl reads {SCHEMA}", "upgrade tidalctl")
        if schema < SCHEMA:
            raise OlderSchema(f"{path} has code pack schema {schema}; this tidalctl reads {SCHEMA}", COMPILE_AGAIN)
        index = msgspec.json.decode(text, type=PackIndex)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{path}: its index does not fit the schema: {error}", COMPILE_AGAIN) from None
    _check(index, path)
    return index


class _Versioned(msgspec.Struct):
    schema: int


def _check(index: PackIndex, path: Path) -> None:
    end = 0
    for number, segment in enumerate(index.segments):
        if segment.offset != end or segment.length <= 0:
            raise Corrupt(f"{path}: segment {number} does not begin where the one before it ends", COMPILE_AGAIN)
        end += segment.length
    following = [0] * len(index.segments)
    for module in index.modules:
        if not 0 <= module.segment < len(index.segments):
            raise Corrupt(f"{path}: module {module.name} lies in a segment that is not there", COMPILE_AGAIN)
        if module.place != following[module.segment]:
            raise Corrupt(f"{path}: module {module.name} does not lie behind the one before it", COMPILE_AGAIN)
        following[module.segment] += 1
        _check_file(module, path)
    if len({module.name for module in index.modules}) != len(index.modules):
        raise Corrupt(f"{path} lists two modules of one name", COMPILE_AGAIN)


def _check_file(module: PackedModule, path: Path) -> None:
    file = module.file
    parts = file.split("/")  # PurePosixPath takes three times as long, at every start
    if "" in parts or "." in parts or ".." in parts or "\\" in file or "\0" in file:
        raise PathEscapes(f"{path} names {file!r}, which leads out of its folder", COMPILE_AGAIN)
    if file != f"code/{file_of(module.name, module.package)}" and file != file_of(module.name, module.package):
        raise Corrupt(f"{path}: {file!r} is no file of the module {module.name}", COMPILE_AGAIN)


def file_of(name: str, package: bool) -> str:
    """Where the source of a module of this name lies below its sys.path entry."""
    return name.replace(".", "/") + ("/__init__.py" if package else ".py")
