"""`tidalctl plan`: what a start will take, what would shorten it, and that a start over a slow link takes what was predicted."""

import os
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from slow_link import slow_down
from streams import Slow, weight

from tidalctl.artifacts.bundle.manifest import BundleWeight
from tidalctl.artifacts.bundle.start_times import StartTimes
from tidalctl.artifacts.bundle.weight_groups import plan_groups
from tidalctl.artifacts.errors import TidalError
from tidalctl.bench import link as measured
from tidalctl.plan.simulation import Link, improvements, simulate
from tidalctl.runtime.weights.engine import WORKERS, Engine
from tidalctl.runtime.weights.file_mapping import WeightsFile

NEAR = 1e-6  # seconds, and less than any byte takes here


class Used(NamedTuple):
    """Weights, and the times of their first uses by name: what a simulation is given first."""

    weights: tuple[BundleWeight, ...]
    uses: dict[str, float]


def weights_of(*found: tuple[int, float | None]) -> Used:
    """Weights of some bytes and first uses, one after the other in one file; those that are used come first, in order."""
    offset, made, uses = 0, [], {}
    for number, (nbytes, use) in enumerate(sorted(found, key=lambda one: (one[1] is None, one[1] or 0.0))):
        order = None if use is None else number
        made.append(weight(f"w{number}", offset, nbytes, order))
        if use is not None:
            uses[f"w{number}"] = use
        offset += nbytes
    return Used(tuple(made), uses)


def times_of(begin: float, lead: float, compute: float, traced: float) -> StartTimes:
    return StartTimes(begin_s=begin, ready_s=begin + lead, compute_s=compute, traced_compute_s=traced)


SECONDS = st.floats(0, 20, allow_subnormal=False)
WEIGHTS = st.lists(st.tuples(st.integers(1, 5000), st.none() | st.floats(0, 9)), max_size=12).map(lambda row: weights_of(*row))
TIMES = st.builds(times_of, SECONDS, SECONDS, SECONDS, st.floats(0, 9))
BANDWIDTHS = st.floats(1, 1e5)
RESIDENT = st.integers(0, 60_000)
SIZES = st.integers(1, 9000)


# -- the simulation


@given(WEIGHTS, TIMES, BANDWIDTHS, RESIDENT, SIZES)
def test_the_first_token_is_compute_and_the_longest_delay_of_any_group(
    weights: Used, times: StartTimes, bandwidth: float, resident: int, size: int
) -> None:
    found = simulate(*weights, times, bandwidth, resident, size)
    total, worst = 0, 0.0
    for group in plan_groups(weights.weights, size):
        uses = [weights.uses[weight.name] for weight in group.weights if weight.name in weights.uses]
        if uses:
            total += group.nbytes
            use = min(min(uses) / times.traced_compute_s, 1) * times.compute_s if times.traced_compute_s else 0.0
            worst = max(worst, times.begin_s + max(total - resident, 0) / bandwidth - times.ready_s - use)
    assert found.bytes == total
    assert found.unhindered_s == times.ready_s + times.compute_s
    assert found.waiting_s == pytest.approx(worst, abs=NEAR)
    assert found.ttft_s == pytest.approx(found.unhindered_s + worst, abs=NEAR)
    assert found.ttft_s >= found.unhindered_s
    assert [a.bytes_before for a in found.arrivals] == sorted(a.bytes_before for a in found.arrivals)
    if found.critical is None:
        assert found.waiting_s == 0
        assert all(arrival.late_s <= 0 for arrival in found.arrivals)
    else:
        assert found.critical in found.arrivals
        assert found.critical.late_s == found.waiting_s == max(arrival.late_s for arrival in found.arrivals)


@given(WEIGHTS, TIMES, BANDWIDTHS, SIZES)
@example(weights_of((100, 0.0)), times_of(0, 1, 1, 1), 1e5, 10)
@example(weights_of((3, 0.0), (7, 0.1)), times_of(0, 1 / 3, 1, 1), 3.0, 1)
def test_the_resident_prefix_makes_waiting_vanish_and_one_group_less_does_not(
    weights: Used, times: StartTimes, bandwidth: float, size: int
) -> None:
    found = simulate(*weights, times, bandwidth, group_size=size)
    assert 0 <= found.resident_prefix <= found.bytes
    assert (found.resident_prefix == 0) == (found.waiting_s <= 0)
    assert simulate(*weights, times, bandwidth, found.resident_prefix, size).waiting_s <= NEAR
    if found.resident_prefix > 0:
        ends = [0, *(arrival.bytes_before for arrival in found.arrivals)]
        less = max(end for end in ends if end < found.resident_prefix)
        assert simulate(*weights, times, bandwidth, less, size).waiting_s > 0


@given(WEIGHTS, TIMES, BANDWIDTHS)
def test_a_warm_process_needs_the_larger_prefix_and_tidals_form_is_no_larger_than_that(
    weights: Used, times: StartTimes, bandwidth: float
) -> None:
    found = simulate(*weights, times, bandwidth, group_size=1)
    warm = msgspec.structs.replace(times, begin_s=0.0, ready_s=0.0)
    assert found.resident_prefix <= found.resident_prefix_warm
    assert found.resident_prefix_warm == pytest.approx(simulate(*weights, warm, bandwidth, group_size=1).resident_prefix, abs=1)
    assert found.resident_prefix_tidal <= found.resident_prefix_warm + 1, "it spends compute that comes after a weight's use"
    assert 0 <= found.resident_prefix_tidal <= found.bytes


def test_a_start_worked_out_by_hand() -> None:
    weights = weights_of((1000, 0.0), (3000, 1.0), (6000, 2.0), (500, None))
    times = times_of(0.5, 1.5, 2.0, 4.0)  # loading from 0.5 s, computing from 2.0 s for 2.0 s, traced at half the speed
    found = simulate(*weights, times, 2000.0, group_size=1)
    assert [(a.weight, a.bytes_before, a.arrives_s, a.used_s) for a in found.arrivals] == [
        ("w0", 1000, 1.0, 2.0),
        ("w1", 4000, 2.5, 2.5),
        ("w2", 10_000, 5.5, 3.0),
    ]
    assert (found.unhindered_s, found.waiting_s, found.ttft_s) == (4.0, 2.5, 6.5)
    assert found.critical is not None
    assert found.critical.weight == "w2"
    assert found.resident_prefix == 10_000 - 2000 * 2.5
    assert found.resident_prefix_warm == 10_000 - 2000 * 1.0
    assert found.resident_prefix_tidal == 10_000 - 2000 * 2.0
    assert simulate(*weights, times, 2000.0, 4000, group_size=1).ttft_s == 4.5
    untraced = times_of(0, 1, 1, 0)
    assert simulate((), {}, untraced, 1.0).ttft_s == 2.0
    assert simulate(*weights_of((10, None)), untraced, 1.0).bytes == 0
    assert simulate(*weights_of((10, 3.0)), untraced, 2.0).ttft_s == 2.0 + 4.0, "its use counts as the first thing"


@given(WEIGHTS, TIMES, BANDWIDTHS, BANDWIDTHS, RESIDENT)
def test_nothing_that_is_said_to_help_makes_a_start_slower(
    weights: Used, times: StartTimes, read: float, hashed: float, resident: int
) -> None:
    over = Link(read=read, hash=hashed)
    now = simulate(*weights, times, over.bandwidth, resident).ttft_s
    found = improvements(*weights, times, over, resident)
    assert all(one.ttft_s <= now + NEAR for one in found)
    assert list(found) == sorted(found, key=lambda one: one.ttft_s)
    assert ("weights that nobody checks" in {one.what for one in found}) == (hashed < read)


def test_a_faster_disk_buys_nothing_where_hashes_are_the_limit() -> None:
    weights, times = weights_of((1000, 0.0)), times_of(0, 0, 0, 1)
    bought = {one.what: one.ttft_s for one in improvements(*weights, times, Link(read=200.0, hash=100.0), 0)}
    assert bought["twice the bandwidth"] == 10.0
    assert bought["weights that nobody checks"] == 5.0
    assert bought["the prefix that makes loading vanish resident"] == 0.0
    free = {one.what: one.ttft_s for one in improvements(*weights, times, Link(read=100.0), 1000)}
    assert "the prefix that makes loading vanish resident" not in free, "it is there already"


@pytest.mark.parametrize("resident", [0, 4000])
@pytest.mark.parametrize("pace", [8000.0, 40_000.0], ids=["loading is longer", "compute is longer"])
def test_a_start_over_a_paced_link_takes_what_was_predicted(pace: float, resident: int) -> None:
    count, nbytes, step = 10, 1000, 0.06
    weights = weights_of(*((nbytes, number * step) for number in range(count)))
    times = times_of(0, 0, count * step, count * step)
    predicted = simulate(*weights, times, pace, resident, nbytes).ttft_s
    device = type("Paced", (Slow,), {})  # whose groups are there at once: what takes time is the pace
    slow_down(device, pace, resident)
    engine = Engine(plan_groups(weights.weights, nbytes), device())
    begin = time.monotonic()
    engine.start()
    for number in range(count):
        engine.need([number])
        time.sleep(step)
    assert time.monotonic() - begin == pytest.approx(predicted, rel=0.1, abs=0.05)


# -- the link


@pytest.mark.parametrize("size", [1, 4097, 3 * measured.STEP + 5])
def test_a_disk_is_measured_past_the_page_cache_and_leaves_nothing_in_it(tmp_path: Path, size: int) -> None:
    path = tmp_path / "w"
    path.write_bytes(os.urandom(size))
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)
    before = WeightsFile(path).resident()
    begin = time.perf_counter()
    try:
        found = measured.read_bandwidth(path)
    except TidalError as error:
        pytest.skip(error.message)  # a file system without direct reads
    assert found >= size / (time.perf_counter() - begin), "no slower than the whole call was"
    assert WeightsFile(path).resident() <= before
    begin = time.perf_counter()
    found = measured.hash_bandwidth(path)
    assert size / (time.perf_counter() - begin) <= found < 1e11


def test_what_cannot_be_measured_is_told_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    for name, way_out in (("absent", "--bandwidth"), ("empty", "compile")):
        with pytest.raises(TidalError) as caught:
            measured.read_bandwidth(tmp_path / name)
        assert way_out in (caught.value.hint or "")
    with pytest.raises(TidalError, match="can't be read"):
        measured.hash_bandwidth(tmp_path / "absent")


@pytest.mark.parametrize(("cores", "hashing"), [(1, 1), (2, 1), (3, 2), (64, WORKERS)])
def test_no_more_hashes_are_counted_on_than_a_run_takes(monkeypatch: pytest.MonkeyPatch, cores: int, hashing: int) -> None:
    monkeypatch.setattr(measured, "hash_bandwidth", lambda path: 100.0)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert measured.check_bandwidth(Path()) == 100.0 * hashing
