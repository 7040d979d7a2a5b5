"""The CUDA device's logic over a stand-in for torch.cuda: where weights lie, what waits for what, and what is told when it can't be.

Whether a real device does what the stand-in does is for test_cuda.py to say.
"""

import itertools
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from cuda_standin import Computing, StandIn, install
from hypothesis import given
from hypothesis import strategies as st
from streams import digest, weight, within

from tidalctl.artifacts.bundle.weight_groups import Group, plan_groups
from tidalctl.artifacts.errors import Corrupt, TidalError, Truncated
from tidalctl.runtime.weights import cuda
from tidalctl.runtime.weights.cuda import ALIGNMENT, Place, moves_of, place_weights, steps
from tidalctl.runtime.weights.device_arrival import BundleSource, DeviceArrival
from tidalctl.runtime.weights.direct_io import Reads
from tidalctl.runtime.weights.file_mapping import WeightsFile
from tidalctl.runtime.weights.graph_capture import CaptureWatch

GPU = "cuda:0"


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return install(StandIn(), monkeypatch.setattr)


def files(folder: Path, sizes: Iterable[int], gap: int = 64, group_size: int = 30_000) -> tuple[bytes, tuple[Group, ...]]:
    """A weights file of random bytes, and its groups."""
    weights, data = [], bytearray(os.urandom(gap))
    for place, size in enumerate(sizes):
        data += os.urandom(size)
        weights.append(weight(str(place), len(data) - size, size, place, digest(bytes(data[-size:])), device=GPU))
        data += os.urandom(-len(data) % gap)
    (folder / "w").write_bytes(data)
    return bytes(data), plan_groups(weights, group_size)


def arrival(
    folder: Path, groups: tuple[Group, ...], direct: bool = False, check: bool = True, ahead: int | None = None
) -> DeviceArrival:
    source = BundleSource(folder, {"w": WeightsFile(folder / "w")}, lambda index: None, direct)
    return DeviceArrival(groups, source, check, workers=2, ahead=ahead)


def held(storage: torch.UntypedStorage) -> bytes:
    return bytes(storage)


# -- where weights lie

LAYOUTS = st.lists(
    st.tuples(st.integers(1, 5000), st.integers(0, 700), st.sampled_from([GPU, "cuda:1"]), st.booleans()), max_size=25
)


def laid_out(layout: list[tuple[int, int, str, bool]], group_size: int) -> tuple[Group, ...]:
    weights, end = [], 0
    for number, (nbytes, gap, device, used) in enumerate(layout):
        weights.append(weight(str(number), end + gap, nbytes, number if used else None, device=device))
        end += gap + nbytes
    return plan_groups(weights, group_size)


@given(LAYOUTS, st.integers(1, 9000), st.integers(1, 12000))
def test_each_weight_has_an_aligned_place_of_its_own_on_its_device_and_moves_bring_its_bytes_there(
    layout: list[tuple[int, int, str, bool]], group_size: int, slab_size: int
) -> None:
    groups = laid_out(layout, group_size)
    places, slabs = place_weights(groups, slab_size)
    memory = [bytearray(size.nbytes) for size in slabs]
    data = os.urandom(max((group.end for group in groups), default=0))
    taken: dict[int, list[tuple[int, int]]] = {}
    for group in groups:
        assert len({one.device for one in group.weights}) == 1, "groups never mix devices"
        for begin, end, (slab, at) in moves_of(group, places):
            assert at + end - begin <= len(memory[slab])
            memory[slab][at : at + end - begin] = data[begin:end]
    for one in (one for group in groups for one in group.weights):
        slab, begin = places[one.name]
        assert begin % ALIGNMENT == 0
        assert slabs[slab].device == one.device
        assert memory[slab][begin : begin + one.nbytes] == data[one.offset : one.offset + one.nbytes]
        taken.setdefault(slab, []).append((begin, begin + one.nbytes))
    for slab, spans in taken.items():
        spans.sort()
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
        assert slabs[slab].nbytes == spans[-1][1], "nothing is allocated beyond the last"
        assert slabs[slab].nbytes <= slab_size or len(spans) == 1
    assert len(taken) == len(slabs)


@pytest.mark.parametrize("length", [1, cuda.STAGE - 1, cuda.STAGE, cuda.STAGE + 1, 3 * cuda.STAGE + 5])
def test_ranges_are_copied_whole_and_in_parts_that_a_buffer_takes(length: int) -> None:
    found = list(steps(7, 7 + length))
    assert (found[0][0], found[-1][1], len(found)) == (7, 7 + length, -(-length // cuda.STAGE))
    assert all(one[1] == two[0] for one, two in itertools.pairwise(found))
    assert all(0 < high - low <= cuda.STAGE for low, high in found)
    (group,) = plan_groups([weight(str(n), 64 + 1024 * n, 1024, n, device=GPU) for n in range(5)])
    assert moves_of(group, place_weights([group])[0]) == [cuda.Move(64, 64 + 5 * 1024, Place(0, 0))], "neighbours are one copy"


# -- what waits for what


@pytest.mark.parametrize("direct", [False, True])
def test_what_a_stream_has_waited_for_is_there(tmp_path: Path, standin: StandIn, direct: bool) -> None:
    data, groups = files(tmp_path, [9000, 512, 70_000, 3, 2048, 30_001])
    made = arrival(tmp_path, groups, direct)
    storages = {one.name: made.storage(one) for group in groups for one in group.weights}
    made.start()
    for group in groups:
        made.need(one.name for one in group.weights)
        for one in group.weights:
            assert held(storages[one.name]) == data[one.offset : one.offset + one.nbytes]
            assert storages[one.name].nbytes() == one.nbytes
    made.engine.wait()
    assert made.engine.done


def test_the_host_goes_on_while_copies_are_on_their_way_and_the_device_waits(tmp_path: Path, standin: StandIn) -> None:
    _, groups = files(tmp_path, [20_000] * 5, group_size=20_000)
    made = arrival(tmp_path, groups)
    stream = Waiting()
    standin.computing = stream
    standin.link.clear()
    made.start()
    assert within(10, lambda: made.need(["0", "1"])) is None, "it returned though nothing was copied"
    assert 1 <= stream.unfinished <= 2, "to wait for the later copy is to wait for both"
    assert not standin.copies
    time.sleep(0.2)
    assert all(made.engine.released(place) for place in range(5))
    assert not made.engine.done, "streams still have to wait"
    standin.link.set()
    made.engine.wait()
    assert len(standin.copies) == 5


class Waiting(Computing):
    """A stream that computes on a device: the host doesn't wait where it does."""

    unfinished = 0

    def wait_event(self, event: Any) -> None:
        self.waits.append(event)
        self.unfinished += not event.done.is_set()


def test_a_stream_waits_once_for_a_group_and_never_for_one_that_came_before(tmp_path: Path, standin: StandIn) -> None:
    _, groups = files(tmp_path, [20_000] * 6, group_size=20_000)
    made = arrival(tmp_path, groups)
    standin.link.clear()
    made.start()
    one, other = Waiting(1), Waiting(2)
    standin.computing = one
    for _ in range(3):
        made.need(["2"])
    assert len(one.waits) == 1
    turns = made._device._events
    earlier = [str(group.index) for group in groups if turns.get(group.index, (99,))[0] < turns[2][0]]
    made.need(earlier)
    assert len(one.waits) == 1, "the copy stream keeps order"
    standin.computing = other
    made.need(["2"])
    assert len(other.waits) == 1, "another stream has not waited yet"
    standin.link.set()
    made.engine.wait()


def test_a_buffer_is_filled_again_only_after_the_copy_that_read_it(
    tmp_path: Path, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "SPARE", 1)
    data, groups = files(tmp_path, [20_000] * 12, group_size=20_000)
    made = arrival(tmp_path, groups)
    storages = {one.name: made.storage(one) for group in groups for one in group.weights}
    read: list[int] = []
    plain = Reads.read
    monkeypatch.setattr(
        Reads, "read", lambda self, begin, end, memory: (read.append(begin), plain(self, begin, end, memory))[1]
    )
    standin.link.clear()
    made.start()
    time.sleep(0.3)
    assert len(read) == 3, "two workers and one to spare: readers wait for a copy"
    standin.link.set()
    made.engine.wait()
    for group in groups:
        for one in group.weights:
            assert held(storages[one.name]) == data[one.offset : one.offset + one.nbytes]


# -- memory


def test_a_weight_keeps_its_slab_and_nothing_else_does(tmp_path: Path, standin: StandIn) -> None:
    data, groups = files(tmp_path, [9000, 512])
    made = arrival(tmp_path, groups)
    (one, two) = groups[0].weights
    storage = made.storage(one)
    made.start()
    made.engine.wait()
    time.sleep(0.05)
    other = made.storage(two)  # all is in, but the state isn't made yet
    made.close_gates({})
    assert made._device._slabs == []
    junk = [torch.full((9728,), 7, dtype=torch.uint8) for _ in range(50)]
    assert held(storage) == data[one.offset : one.offset + one.nbytes]
    assert held(other) == data[two.offset : two.offset + two.nbytes]
    assert len(junk) == 50
    made.need(["0", "1"])


def test_no_room_and_no_device_are_one_error_each(tmp_path: Path, standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    _, groups = files(tmp_path, [9000, 512])
    with pytest.raises(TidalError, match="live on cuda:3; torch sees 1"):
        arrival(tmp_path, plan_groups([weight("0", 0, 100, device="cuda:3")]))
    standin.room = 5000
    with pytest.raises(TidalError, match=r"cuda:0 has no room for 0\.00 GB of weights") as found:
        arrival(tmp_path, groups)
    assert "--eager" in (found.value.hint or "")

    def allocate(device: str, nbytes: int) -> torch.Tensor:
        raise RuntimeError(cause)

    monkeypatch.setattr(cuda, "_allocate", allocate)
    cause = "CUDA error: out of memory"
    with pytest.raises(TidalError, match=r"cuda:0 has no room for 0\.00 GB of weights$"):
        arrival(tmp_path, groups)
    cause = "CUDA error: unspecified launch failure"
    with pytest.raises(RuntimeError, match="unspecified"):
        arrival(tmp_path, groups)


def test_before_a_graph_is_captured_everything_is_in_and_nobody_calls_the_driver(
    tmp_path: Path, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, groups = files(tmp_path, [9000] * 8, group_size=9000)
    captured: list[tuple[bool, bool]] = []

    def capture_begin(graph: object, *arguments: object) -> None:
        captured.append((made.engine.done, any(thread.is_alive() for thread in made.engine.threads)))

    monkeypatch.setattr(torch.cuda.CUDAGraph, "capture_begin", capture_begin)
    standin.link.clear()
    made = arrival(tmp_path, groups)
    made.start()
    made.watch_operators()
    assert not made.engine.done
    standin.link.set()
    within(10, lambda: torch.cuda.CUDAGraph.capture_begin(None))
    assert captured == [(True, False)]
    assert torch.cuda.CUDAGraph.capture_begin is capture_begin, "nothing of ours is left on the path"
    made.leave()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_watches_of_captures_leave_nothing_behind_in_whatever_order_they_end(
    monkeypatch: pytest.MonkeyPatch, order: tuple[int, int]
) -> None:
    def capture_begin(graph: object, pool: object = None) -> object:
        return pool

    monkeypatch.setattr(torch.cuda.CUDAGraph, "capture_begin", capture_begin)
    told: list[int] = []
    watches = [CaptureWatch(lambda place=place: told.append(place)) for place in range(2)]  # type: ignore[misc]
    for watch in watches:
        watch.begin()
        watch.begin()
    assert torch.cuda.CUDAGraph.capture_begin(None, pool="p") == "p"
    assert sorted(told) == [0, 1]
    watches[order[0]].end()
    torch.cuda.CUDAGraph.capture_begin(None)
    assert told[2:] == [order[1]]
    watches[order[1]].end()
    assert torch.cuda.CUDAGraph.capture_begin is capture_begin


# -- what is wrong is told


def test_bytes_that_nobody_checked_before_are_hashed_on_their_way(tmp_path: Path, standin: StandIn) -> None:
    data, groups = files(tmp_path, [20_000] * 6)
    spoiled = bytearray(data)
    spoiled[66_000] ^= 1
    (tmp_path / "w").write_bytes(spoiled)
    made = arrival(tmp_path, groups, direct=True)
    made.start()
    for place, group in enumerate(groups):
        error = within(10, lambda place=place: made.engine.need([place]))  # type: ignore[misc]
        assert isinstance(error, Corrupt) == (group.begin <= 66_000 < group.end)
    assert not made.engine.done


def test_a_file_that_was_cut_is_told(tmp_path: Path, standin: StandIn) -> None:
    _, groups = files(tmp_path, [20_000] * 6)
    os.truncate(tmp_path / "w", 66_000)
    made = arrival(tmp_path, groups)
    made.start()
    assert isinstance(within(10, made.engine.wait), Truncated)


def test_what_the_reading_engine_found_wrong_is_told_where_it_is_needed(tmp_path: Path, standin: StandIn) -> None:
    _, groups = files(tmp_path, [20_000] * 3, group_size=20_000)

    def fetch(index: int) -> None:
        if index == 1:
            raise Corrupt("spoiled", None)

    source = BundleSource(tmp_path, {"w": WeightsFile(tmp_path / "w")}, fetch, direct=False)
    made = DeviceArrival(groups, source, True, workers=2, ahead=None)
    made.start()
    assert within(10, lambda: made.need(["0"])) is None
    assert isinstance(within(10, lambda: made.need(["1"])), Corrupt)
