"""The weights file is a plain safetensors file: what the stock readers see of it, and where each byte lies."""

import hashlib
import json
import math
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file as load_torch
from sample_artifacts import fixed
from xxhash import xxh3_128

from tidalctl.artifacts.bundle.weights_file import (
    ALIGNMENT,
    DTYPES,
    PAD,
    Entry,
    Placement,
    ShardLayout,
    check_header,
    kept_address,
    plan_shards,
    write_shard,
)

NUMPY_LACKS = {"bfloat16", "float8_e4m3fn", "float8_e5m2"}


def entry(name: str, dtype: str, *shape: int) -> Entry:
    return Entry(name=name, dtype=dtype, shape=shape, nbytes=math.prod(shape) * DTYPES[dtype][1])


def content(wanted: Entry) -> bytes:
    """Bytes that are the same for the same entry. A bool is 0 or 1, since torch reads nothing else as one."""
    dice = random.Random(f"{wanted.name} {wanted.dtype} {wanted.shape}")
    return bytes(dice.choices((0, 1), k=wanted.nbytes)) if wanted.dtype == "bool" else dice.randbytes(wanted.nbytes)


def in_threes(placement: Placement) -> list[memoryview]:
    """A weight's bytes in pieces of three, so that pieces end where neither elements nor alignment do."""
    data = memoryview(content(placement.entry))
    return [data[begin : begin + 3] for begin in range(0, len(data), 3)]


def write(folder: Path, entries: list[Entry], shard_size: int | None = None) -> tuple[ShardLayout, ...]:
    shards = plan_shards(entries, shard_size)
    for shard in shards:
        digests = write_shard(folder, shard, in_threes, lambda nbytes: None)
        data = (folder / shard.file).read_bytes()
        assert len(data) == shard.size
        assert hashlib.sha256(data).hexdigest() == digests.whole
        contents = {p.entry.name: content(p.entry) for p in shard.placements}
        assert digests.sha256 == {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
        assert digests.xxh3 == {name: xxh3_128(data).hexdigest() for name, data in contents.items()}
    return shards


def stock_order(path: Path) -> list[str]:
    """The weights in the order in which the stock reader says that they lie."""
    with safe_open(path, framework="pt") as opened:
        return [name for name in opened.offset_keys() if not name.startswith(PAD)]


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


SOME = [
    entry("z.first", "bfloat16", 5, 3),
    entry("mask", "bool", 7),
    entry("quantised", "int8", 3, 5),
    entry("a.spectrum", "complex64", 3),
    entry("scalar", "float64"),
    entry("half", "float16", 9),
    entry("eighth", "float8_e4m3fn", 11),
    entry("flat", "uint8", 101),
]


def test_every_dtype_of_the_format_comes_back_bit_for_bit(tmp_path: Path) -> None:
    entries = [entry(f"of {dtype}", dtype, 3, 5) for dtype in DTYPES]
    write(tmp_path, entries)
    loaded = load_torch(tmp_path / "weights.safetensors")
    for each in entries:
        tensor = loaded[each.name]
        assert (str(tensor.dtype), tuple(tensor.shape)) == (f"torch.{each.dtype}", each.shape)
        assert bytes_of(tensor) == content(each)


def test_an_empty_weight_keeps_its_name_dtype_and_shape(tmp_path: Path) -> None:
    write(tmp_path, [entry("before", "uint8", 3), entry("empty", "bfloat16", 0, 4), entry("after", "uint8", 3)])
    tensor = load_torch(tmp_path / "weights.safetensors")["empty"]
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.bfloat16, (0, 4))
    names = [f"empty {index}" for index in (5, 3, 9, 1, 7, 0)]
    write(tmp_path, [entry("first", "uint8", 64), *(entry(name, "float32", 0) for name in names), entry("last", "uint8", 1)])
    assert stock_order(tmp_path / "weights.safetensors") == ["first", *names, "last"]


def test_a_state_without_weights_is_a_file_that_the_stock_reader_opens(tmp_path: Path) -> None:
    write(tmp_path, [])
    assert load_torch(tmp_path / "weights.safetensors") == {}
    assert check_header(tmp_path / "weights.safetensors").keys() == {"__metadata__"}


def test_a_weight_keeps_its_address_modulo_16_where_rounding_may_hang_on_it(tmp_path: Path) -> None:
    dtypes = ("float32", "float64", "bfloat16", "int64", "uint8")
    kept = {dtype: kept_address(dtype, 4096 + 40) for dtype in dtypes}
    assert kept == {"float32": 8, "float64": 8, "bfloat16": 0, "int64": 0, "uint8": 8}
    entries = [
        msgspec.structs.replace(entry(f"{dtype} {number}", dtype, 5), address=kept[dtype])
        for number in range(3)
        for dtype in dtypes
    ]
    (shard,) = write(tmp_path, entries)
    assert [placement.offset % ALIGNMENT for placement in shard.placements] == [one.address for one in entries]
    data = (tmp_path / shard.file).read_bytes()
    for placement in shard.placements:
        assert data[placement.offset : placement.offset + placement.entry.nbytes] == content(placement.entry)
    assert stock_order(tmp_path / shard.file) == [one.name for one in entries]


def test_names_of_any_language_and_with_quotes_come_back(tmp_path: Path) -> None:
    names = ["слой.вес", '"quoted"', "with\nline", "back\\slash", "emoji 🌊", ""]
    write(tmp_path, [entry(name, "uint8", 1) for name in names])
    assert stock_order(tmp_path / "weights.safetensors") == names


def test_shards_are_cut_at_the_size_and_named_as_the_hubs_do(tmp_path: Path) -> None:
    entries = [entry(f"w{index}", "uint8", size) for index, size in enumerate((40, 60, 1, 99, 250, 10))]
    shards = write(tmp_path, entries, shard_size=100)
    assert [[p.entry.name for p in shard.placements] for shard in shards] == [["w0", "w1"], ["w2", "w3"], ["w4"], ["w5"]]
    assert [shard.file for shard in shards] == [f"weights-0000{number}-of-00004.safetensors" for number in (1, 2, 3, 4)]
    assert [name for shard in shards for name in stock_order(tmp_path / shard.file)] == [each.name for each in entries]


def test_weights_lie_in_our_order_at_multiples_of_64_bytes_with_zeros_between(tmp_path: Path) -> None:
    (shard,) = write(tmp_path, SOME)
    file = tmp_path / shard.file
    assert stock_order(file) == [each.name for each in SOME]
    data, header = file.read_bytes(), check_header(file)
    for placement in shard.placements:
        assert placement.offset % ALIGNMENT == 0
        assert data[placement.offset : placement.offset + placement.entry.nbytes] == content(placement.entry)
        begin, end = header[placement.entry.name]["data_offsets"]
        assert (len(shard.header) + begin, end - begin) == (placement.offset, placement.entry.nbytes)
    gaps = {name: gap for name, gap in load_torch(file).items() if name.startswith(PAD)}
    assert gaps
    assert all(0 < len(gap) < ALIGNMENT and not gap.any() for gap in gaps.values())
    told: list[int] = []
    write_shard(tmp_path, shard, in_threes, told.append)
    assert sum(told) == sum(each.nbytes for each in SOME)
    assert plan_shards(SOME, None) == plan_shards(list(SOME), None) == plan_shards(SOME, sum(told)) == (shard,)
    assert json.loads(shard.header[8:])["__metadata__"] == {"format": "pt", "order": "first use"}


@pytest.mark.parametrize("size", [1, 63, 64, 65])
def test_nothing_lies_behind_the_last_weight_nor_behind_one_that_fits(tmp_path: Path, size: int) -> None:
    (shard,) = write(tmp_path, [entry("one", "uint8", 128), entry("other", "float32", 16), entry("last", "uint8", size)])
    assert load_torch(tmp_path / shard.file).keys() == {"one", "other", "last"}
    assert shard.size == shard.placements[-1].offset + size


entries_of_a_state = st.lists(
    st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 6), max_size=3)), max_size=12
).map(lambda kinds: [entry(f"{index} {dtype}", dtype, *shape) for index, (dtype, shape) in enumerate(kinds)])


@settings(fixed, max_examples=60)
@given(entries=entries_of_a_state, shard_size=st.none() | st.integers(0, 400))
def test_any_state_comes_back_through_the_stock_readers(tmp_path: Path, entries: list[Entry], shard_size: int | None) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    shards = write(tmp_path, entries, shard_size)
    assert [name for shard in shards for name in stock_order(tmp_path / shard.file)] == [each.name for each in entries]
    for shard in shards:
        check_header(tmp_path / shard.file)
        loaded = load_torch(tmp_path / shard.file)
        for placement in shard.placements:
            each = placement.entry
            assert placement.offset % ALIGNMENT == 0
            assert tuple(loaded[each.name].shape) == each.shape
            assert bytes_of(loaded[each.name]) == content(each)
        if all(placement.entry.dtype not in NUMPY_LACKS for placement in shard.placements):
            arrays = load_numpy(tmp_path / shard.file)
            assert all(arrays[p.entry.name].tobytes() == content(p.entry) for p in shard.placements)
            assert all(arrays[p.entry.name].dtype == np.dtype(p.entry.dtype) for p in shard.placements)
