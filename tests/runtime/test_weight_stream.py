"""The streaming engine: what is released is there and right, what is needed comes first, and nobody waits for ever."""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import Slow, digest, weight, within

from tidalctl.artifacts.bundle.weight_groups import Group, plan_groups
from tidalctl.artifacts.errors import Corrupt, TidalError, Truncated
from tidalctl.runtime.weights import file_mapping as mapping
from tidalctl.runtime.weights.engine import WORKERS, Engine
from tidalctl.runtime.weights.file_mapping import PAGE
from tidalctl.runtime.weights.mapped import MappedDevice


def row(count: int, nbytes: int = 10) -> tuple[Group, ...]:
    """Groups of one weight each, in order."""
    return plan_groups((weight(str(n), n * nbytes, nbytes, n) for n in range(count)), nbytes)


def started(groups: tuple[Group, ...], device: Any, ahead: int | None = None) -> Engine:
    engine = Engine(groups, device, ahead=ahead)
    engine.start()
    return engine


LAYOUTS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 5), st.none() | st.integers(0, 30), st.sampled_from("ab")), max_size=20
)


@given(LAYOUTS, st.integers(1, 60))
def test_groups_hold_each_weight_once_and_come_in_the_order_of_first_use(
    layout: list[tuple[int, int, int | None, str]], size: int
) -> None:
    ends = {"a": 0, "b": 0}
    weights = []
    for number, (nbytes, gap, use, file) in enumerate(layout):
        weights.append(weight(str(number), ends[file] + gap, nbytes, use, file=file))
        ends[file] += gap + nbytes
    groups = plan_groups(weights, size)
    assert sorted(w.name for g in groups for w in g.weights) == sorted(w.name for w in weights if w.nbytes)
    uses = [g.first_use for g in groups]
    assert uses == sorted(uses, key=lambda use: 2**62 if use is None else use), "what nothing uses comes last"
    for index, group in enumerate(groups):
        assert group.index == index
        assert group.nbytes <= size or len(group.weights) == 1
        assert len({w.first_use is None for w in group.weights}) == 1
        for one in group.weights:
            assert one.file == group.file
            assert group.begin <= one.offset
            assert one.offset + one.nbytes <= group.end


def test_what_the_trace_saw_no_use_of_in_a_module_that_it_used_comes_with_that_module() -> None:
    """The module waits for all that it owns: were its unused buffer last, it would wait for everything."""
    layout = [("a.weight", 0), ("b.table", 1), ("c.weight", 2), ("b.original", None), ("expert.weight", None), ("alone", None)]
    groups = plan_groups((weight(name, n * 10, 10, use) for n, (name, use) in enumerate(layout)), 10)
    assert [one.name for group in groups for one in group.weights] == [
        *("a.weight", "b.table", "b.original", "c.weight", "expert.weight", "alone")
    ]


@given(st.integers(0, 12), st.lists(st.integers(0, 11), max_size=8), st.none() | st.integers(0, 60), st.randoms())
@settings(max_examples=60, deadline=None)
def test_whatever_is_needed_in_whatever_order_comes_checked(count: int, needs: list[int], ahead: int | None, chance) -> None:  # type: ignore[no-untyped-def]
    device = Slow(lambda group: time.sleep(chance.random() / 2000))
    engine = started(row(count), device, ahead=ahead)
    for index in needs:
        if index < count:
            assert within(10, lambda index=index: engine.need([index])) is None  # type: ignore[misc]
            assert index in device.checked
    assert within(10, engine.wait) is None
    assert engine.done
    assert sorted(device.brought) == list(range(count)), "each is brought in once"
    assert device.checked == set(range(count))


def test_a_needed_group_jumps_the_queue_and_counts_as_a_miss_where_the_trace_saw_no_use() -> None:
    gate = threading.Event()
    device = Slow(lambda group: gate.wait(10) and None)
    groups = plan_groups([*(weight(str(n), n * 10, 10, n) for n in range(20)), weight("expert", 200, 10, None)], 10)
    engine = started(groups, device)
    waiting = threading.Thread(target=lambda: engine.need([20]))
    waiting.start()
    while 20 not in engine._urgent:
        time.sleep(0.001)
    gate.set()
    waiting.join(10)
    engine.wait()
    assert device.brought.index(20) <= WORKERS + 1, "those that were on their way, and then this one"
    assert engine.misses == 1
    assert [group.index for group, _, _ in engine.stalls] == [20]


def test_readers_stay_within_the_bound_ahead_of_use() -> None:
    device = Slow()
    engine = started(row(10), device, ahead=30)
    time.sleep(0.2)
    assert device.brought == [0, 1, 2], "30 bytes of 10 each"
    engine.need([2])
    time.sleep(0.2)
    assert sorted(device.brought) == [0, 1, 2, 3, 4, 5]
    engine.wait()
    assert len(device.brought) == 10


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), Corrupt("flipped", None)])
def test_a_group_that_fails_is_an_error_for_whoever_needs_it_and_for_no_other(error: Exception) -> None:
    before, seen = sys.getswitchinterval(), []

    def fail(group: Group) -> None:
        seen.append(sys.getswitchinterval())
        if group.index == 3:
            raise error

    engine = started(row(6), Slow(fail))
    assert within(10, lambda: engine.need([0, 1, 2, 4, 5])) is None
    for _ in range(2):
        assert within(10, lambda: engine.need([3])) is error
        assert within(10, engine.wait) is error
    assert not engine.done
    for thread in engine.threads:
        thread.join(10)
    assert max(seen) < before == sys.getswitchinterval(), "interpreter turns were short meanwhile"


def test_a_reader_that_dies_lets_nobody_wait_for_ever() -> None:
    def die(group: Group) -> None:
        if group.index == 1:
            raise MemoryError("no room")

    engine = started(row(6), Slow(die))
    error = within(10, engine.wait)
    assert isinstance(error, TidalError)
    assert "MemoryError" in error.message


def test_groups_are_entered_in_the_page_table_only_while_somebody_stands_still() -> None:
    device, go = Slow(lambda group: go.wait(10) and None), threading.Event()
    engine = started(row(6, 100), device)
    waits = threading.Thread(target=engine.wait)
    waits.start()
    while not engine._waiting:
        time.sleep(0.01)
    go.set()
    waits.join(10)
    assert device.hurried == set(range(6))
    alone = Slow()
    engine = started(row(6, 100), alone)
    for thread in engine.threads:
        thread.join(10)
    assert engine.done and not alone.hurried


@pytest.mark.parametrize("call", [mapping.CACHESTAT, -1], ids=["cachestat", "mincore"])
def test_a_range_is_entered_and_counted_whatever_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    monkeypatch.setattr(mapping, "CACHESTAT", call)
    (tmp_path / "w").write_bytes(os.urandom(3 * PAGE + 5))
    file = mapping.WeightsFile(tmp_path / "w")
    private = file.map_privately()
    for begin, end in ((0, 3 * PAGE + 5), (1, 2), (PAGE - 1, PAGE + 1), (3 * PAGE, 3 * PAGE + 5), (PAGE, PAGE)):
        private.enter(begin, end)
        assert file.holds(begin, end)
    assert file.resident() == 3 * PAGE + 5


def test_reading_goes_on_where_a_file_system_gives_less_than_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w").write_bytes(os.urandom(10_000))
    file = mapping.WeightsFile(tmp_path / "w")
    monkeypatch.setattr(mapping, "BUFFER", 512)
    monkeypatch.setattr(
        os, "preadv", lambda handle, parts, offset: len(os.pread(handle, min(700, sum(map(len, parts))), offset))
    )
    assert file.read(100, 5000) == 5000 and file.read(9000, 5000) == 1000
    assert file.read(10_000, 1) == 0
    assert mapping.in_memory(tmp_path / "gone")


@pytest.mark.parametrize("wrong", [0, 2, 5])
def test_where_a_group_is_wrong_the_gates_stay(wrong: int) -> None:
    """Whichever comes last: what the trace saw no use of may be read yet, and nobody else would tell."""

    def spoil(group: Group) -> None:
        if group.index == wrong:
            raise Corrupt("is not what compile wrote")

    opened: list[bool] = []
    engine = Engine(row(6, 100), Slow(spoil))
    engine.on_done = lambda: opened.append(True)
    engine.start()
    engine.end()
    assert not opened and not engine.done
    for index in range(6):
        assert isinstance(within(10, lambda index=index: engine.need([index])), Corrupt) == (index == wrong)  # type: ignore[misc]


def mapped(folder: Path, data: bytes, size: int = 5000) -> tuple[MappedDevice, tuple[Group, ...]]:
    (folder / "w").write_bytes(data)
    weights = [
        weight(str(at), at, len(part), at, digest(part)) for at in range(0, len(data), size) if (part := data[at : at + size])
    ]
    return MappedDevice(folder, ["w"]), plan_groups(weights, size * 3)


def test_what_a_handler_wrote_to_its_copy_is_no_corruption(tmp_path: Path) -> None:
    device, groups = mapped(tmp_path, os.urandom(50_000))
    device.mappings["w"].memory[7:9] = b"\0\0"
    (tmp_path / "other").write_bytes(bytes(50_000))
    written = (tmp_path / "w").read_bytes()
    os.replace(tmp_path / "other", tmp_path / "w")  # what takes the name is another file
    engine = started(groups, device)
    engine.wait()
    device.refuse_changed()
    assert written != bytes(device.mappings["w"].memory)
    assert written == bytes(device.map_again()["w"].memory)


@pytest.mark.parametrize("in_memory", [True, False])
def test_any_flipped_byte_of_a_weight_is_told_and_only_of_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    data = bytearray(os.urandom(50_000))
    device, groups = mapped(tmp_path, bytes(data))
    data[33_333] ^= 1
    (tmp_path / "v").write_bytes(data)
    device = MappedDevice(tmp_path, ["v"])
    device.files["w"], device.mappings["w"] = device.files["v"], device.mappings["v"]
    monkeypatch.setattr(type(device.files["w"]), "holds", lambda file, begin, end: in_memory)
    engine = started(groups, device)
    wrong = next(group.index for group in groups if group.begin <= 33_333 < group.end)
    for group in groups:
        error = within(10, lambda group=group: engine.need([group.index]))  # type: ignore[misc]
        assert isinstance(error, Corrupt) == (group.index == wrong)


def test_a_file_that_is_cut_or_written_to_is_told(tmp_path: Path) -> None:
    device, groups = mapped(tmp_path, os.urandom(50_000))
    device.refuse_changed()
    os.truncate(tmp_path / "w", 20_000)
    with pytest.raises(Corrupt):
        device.refuse_changed()
    engine = started(groups, device)
    assert isinstance(within(10, engine.wait), Corrupt | Truncated)
