"""The weights file: safetensors, in access order, each weight aligned to 64 bytes, opened by the stock reader.

A weight that lay otherwise in the plain function's memory, as one in a stock file that is mapped may, keeps its address modulo 16 where
that decides a last bit: BLAS takes single and double precision another way there, and answers are to be the plain function's.

The format allows no gaps between tensors, so the gaps that alignment needs are tensors themselves: byte tensors named
`.pad.N`. A weight is a whole storage. Where one contiguous tensor covers it, the entry carries that tensor's dtype and shape;
where it does not (views of one buffer, transposed layouts, dtypes the format lacks), it is a flat run of bytes.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.errors import COMPILE_AGAIN, Corrupt, Truncated
from tidalctl.artifacts.hashing import weight_hasher
from tidalctl.artifacts.records import Record

ALIGNMENT = 64
ROUNDING = 16  # bytes: of an address modulo this, BLAS's rounding may depend
PAD = ".pad."
CHUNK = 8 * 2**20
MAX_HEADER = 100_000_000  # the stock reader's own limit

# torch's names of the dtypes that the format knows, and their sizes in bytes
DTYPES = {
    "bool": ("BOOL", 1),
    "uint8": ("U8", 1),
    "int8": ("I8", 1),
    "float8_e4m3fn": ("F8_E4M3", 1),
    "float8_e5m2": ("F8_E5M2", 1),
    "int16": ("I16", 2),
    "uint16": ("U16", 2),
    "float16": ("F16", 2),
    "bfloat16": ("BF16", 2),
    "int32": ("I32", 4),
    "uint32": ("U32", 4),
    "float32": ("F32", 4),
    "complex64": ("C64", 8),
    "float64": ("F64", 8),
    "int64": ("I64", 8),
    "uint64": ("U64", 8),
}

# Where an address may decide a last bit, and runs of bytes, which may be anything. Half precision takes another way (measured).
ROUNDED = ("float32", "float64", "complex64", "uint8")


class Entry(Record, frozen=True):
    """One weight as it will lie in a file: its name there, torch dtype and shape, and its address modulo ALIGNMENT."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    address: int = 0


def kept_address(dtype: str, address: int) -> int:
    """Of a weight's address in the plain function's memory, what it keeps: its remainder modulo ROUNDING, where it matters."""
    return address % ROUNDING if dtype in ROUNDED else 0


class Placement(Record, frozen=True):
    """An entry, the file it lies in, and its offset from the start of that file."""

    entry: Entry
    file: str
    offset: int


class ShardLayout(Record, frozen=True):
    """A weights file before it is written: its header's bytes and the placements in order."""

    file: str
    header: bytes
    placements: tuple[Placement, ...]
    size: int


def plan_shards(entries: Sequence[Entry], shard_size: int | None, stem: str = "weights") -> tuple[ShardLayout, ...]:
    """Cut the entries, in order, into files of at most `shard_size` bytes of weights each (one file where it is None).

    One shard is `weights.safetensors`; several are `weights-00001-of-00003.safetensors`, as the hubs name them.
    """
    groups: list[list[Entry]] = [[]]
    held = 0
    for entry in entries:
        if shard_size is not None and groups[-1] and held + entry.nbytes > shard_size:
            groups.append([])
            held = 0
        groups[-1].append(entry)
        held += entry.nbytes
    names = (
        [f"{stem}.safetensors"]
        if len(groups) == 1
        else [f"{stem}-{i + 1:05}-of-{len(groups):05}.safetensors" for i in range(len(groups))]
    )
    return tuple(_lay_out(name, group) for name, group in zip(names, groups, strict=True))


def _lay_out(file: str, entries: Sequence[Entry]) -> ShardLayout:
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "order": "first use"}}
    offsets: list[int] = []
    position = pads = 0
    for entry in entries:
        # two empty weights at one offset would have no order: readers sort by offsets alone
        tied = entry.nbytes == 0 and offsets[-1:] == [position]
        if gap := (entry.address - position) % ALIGNMENT or tied * ALIGNMENT:
            end = position + gap
            header[f"{PAD}{pads}"] = {"dtype": "U8", "shape": [end - position], "data_offsets": [position, end]}
            position, pads = end, pads + 1
        code = DTYPES[entry.dtype][0]
        header[entry.name] = {"dtype": code, "shape": list(entry.shape), "data_offsets": [position, position + entry.nbytes]}
        offsets.append(position)
        position += entry.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    head = len(text).to_bytes(8, "little") + text
    placements = tuple(
        Placement(entry=entry, file=file, offset=len(head) + offset) for entry, offset in zip(entries, offsets, strict=True)
    )
    return ShardLayout(file=file, header=head, placements=placements, size=len(head) + position)


class ShardDigests(Record, frozen=True):
    """`whole` is the sha256 of the file; the others are of each weight's bytes, by name."""

    whole: str
    sha256: dict[str, str]
    xxh3: dict[str, str]


def write_shard(
    folder: Path,
    shard: ShardLayout,
    chunks: Callable[[Placement], Iterable[memoryview]],
    progress: Callable[[int], None],
) -> ShardDigests:
    """Stream a shard to disk. `chunks` gives a weight's bytes piece by piece, so that no copy of it is ever held."""
    whole = hashlib.sha256(shard.header)
    digests = ShardDigests(whole="", sha256={}, xxh3={})
    with open(folder / shard.file, "wb", buffering=0) as file:
        _write_all(file, memoryview(shard.header))
        position = len(shard.header)
        for placement in shard.placements:
            if gap := placement.offset - position:
                _write_all(file, memoryview(bytes(gap)))
                whole.update(bytes(gap))
            own, fast = hashlib.sha256(), weight_hasher()
            for chunk in chunks(placement):
                _write_all(file, chunk)
                own.update(chunk)
                fast.update(chunk)
                whole.update(chunk)
                progress(len(chunk))
            digests.sha256[placement.entry.name] = own.hexdigest()
            digests.xxh3[placement.entry.name] = fast.hexdigest()
            position = placement.offset + placement.entry.nbytes
    return msgspec.structs.replace(digests, whole=whole.hexdigest())


class ShardFile(Record, frozen=True):
    """A shard as it lies on disk."""

    file: str
    size: int
    sha256: str


class StoredWeights(Record, frozen=True):
    """Weights as they lie in their files. `digests` are their sha256 by name, and `xxh3` their other digests."""

    placements: tuple[Placement, ...]
    digests: dict[str, str]
    xxh3: dict[str, str]
    shards: tuple[ShardFile, ...]


def write_shards(
    folder: Path,
    shards: Sequence[ShardLayout],
    chunks: Callable[[Placement], Iterable[memoryview]],
    progress: Callable[[int], None],
) -> StoredWeights:
    """Write all shards. See `write_shard`."""
    digests = [write_shard(folder, shard, chunks, progress) for shard in shards]
    return StoredWeights(
        placements=tuple(placement for shard in shards for placement in shard.placements),
        digests={name: digest for own in digests for name, digest in own.sha256.items()},
        xxh3={name: digest for own in digests for name, digest in own.xxh3.items()},
        shards=tuple(
            ShardFile(file=shard.file, size=shard.size, sha256=own.whole) for shard, own in zip(shards, digests, strict=True)
        ),
    )


def _write_all(file: Any, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def check_header(path: Path) -> dict[str, Any]:
    """The header of a weights file, checked: length, JSON, and tensors that fill the file without gaps, each its own span.

    Raises Truncated or Corrupt.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise Truncated(f"{path} is shorter than its header", COMPILE_AGAIN)
        length = int.from_bytes(prefix, "little")
        if length > min(MAX_HEADER, size - 8):
            raise Truncated(f"{path}: its header claims {length} bytes", COMPILE_AGAIN)
        data = file.read(length)
    try:
        header = json.loads(data.decode())
        metadata = header.get("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata that is no map of strings")
        spans = [(key, *_span(value)) for key, value in header.items() if key != "__metadata__"]
        position = 0
        for key, start, end in sorted(spans, key=lambda span: (span[1], span[2])):
            if start != position or end < start:
                raise Corrupt(f"{path}: tensor {key!r} does not follow the one before it", COMPILE_AGAIN)
            position = end
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Corrupt(f"{path}: its header is not that of a safetensors file: {error}", COMPILE_AGAIN) from None
    if 8 + length + position != size:
        raise Truncated(f"{path}: its header covers {8 + length + position} bytes of {size}", COMPILE_AGAIN)
    return header


def _span(tensor: dict[str, Any]) -> tuple[int, int]:
    """A tensor's two offsets in the data. Raises ValueError, KeyError or TypeError unless its dtype and shape fill them."""
    start, end = tensor["data_offsets"]
    counts = (start, end, *tensor["shape"])
    if any(type(count) is not int or count < 0 for count in counts):
        raise ValueError("an offset or a shape that is no count")
    if _ITEM_SIZES[tensor["dtype"]] * math.prod(tensor["shape"]) != end - start:
        raise ValueError(f"a {tensor['dtype']} of shape {tensor['shape']} does not have {end - start} bytes")
    return start, end


_ITEM_SIZES = dict(DTYPES.values())
