"""Reads of a weights file past the page cache, and ordinary ones where there are no such."""

import os
from pathlib import Path
from typing import Any

import pytest
from cuda_standin import pin
from hypothesis import given
from hypothesis import strategies as st

from tidalctl.artifacts.errors import Truncated
from tidalctl.runtime.weights import cuda
from tidalctl.runtime.weights.direct_io import BLOCK, Reads
from tidalctl.runtime.weights.file_mapping import WeightsFile


@given(st.lists(st.tuples(st.integers(0, 60_000), st.integers(1, 30_000)), min_size=1, max_size=6), st.booleans())
def test_direct_and_buffered_reads_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, ranges: list[tuple[int, int]], direct: bool
) -> None:
    path = tmp_path_factory.mktemp("reads") / "w"
    data = bytes(n * n % 251 for n in range(61_234))
    path.write_bytes(data)
    reads = Reads(WeightsFile(path), direct)
    memory = cuda.view_of(buffer := pin(30_000 + 2 * BLOCK))
    for begin, length in ranges:
        end = min(begin + length, len(data))
        if begin < end:
            at = reads.read(begin, end, memory)
            assert bytes(memory[at : at + end - begin]) == data[begin:end]
            with pytest.raises(Truncated):
                reads.read(begin, len(data) + 1, cuda.view_of(pin(len(data) + 3 * BLOCK)))
    assert buffer.numel()


def test_where_the_file_system_refuses_direct_reads_they_are_ordinary_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w").write_bytes(bytes(range(200)) * 50)
    plain = os.open

    def refuse(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return plain(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    reads = Reads(WeightsFile(tmp_path / "w"), True)
    assert not reads.direct
    memory = cuda.view_of(buffer := pin(10_000))
    assert reads.read(5, 15, memory) == 0
    assert bytes(memory[:10]) == bytes(range(5, 15))
    assert buffer.numel()
