"""Verdicts on limits: right on a noisy machine, whose noise is that of recorded benches."""

import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidalctl.bench.budgets import STEP
from tidalctl.bench.verdict import Word, estimate, estimate_ratio, limit, regression, shift

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
BENCHES = 100
ROUNDS = 10


def noise(name: str, variant: str) -> list[float]:
    """Return times to the first output of recorded starts, each over their median."""
    samples = json.loads((RESULTS / name).read_text())["samples"]
    times = [sample["ttft_s"] for sample in samples if sample["variant"] == variant and sample["cache"] == "warm"]
    return [time / statistics.median(times) for time in times]


RECORDED = {
    f"{name} {variant}": noise(name, variant)
    for name in ("host-smollm2.json", "host-llama.json")
    for variant in ("eager", "bundle")
}


def benches(pool: list[float], slower: float, judge: Callable[[list[float], list[float]], Word]) -> Counter[Word]:
    """Return the verdicts of many benches of a start that is so much slower than its baseline, with rounds as `bench` adds them."""
    draw, words = random.Random(11), Counter[Word]()
    for _ in range(BENCHES):
        new: list[float] = []
        old: list[float] = []
        rounds = ROUNDS
        while True:
            new += [slower * draw.choice(pool) for _ in range(rounds - len(new))]
            old += [draw.choice(pool) for _ in range(rounds - len(old))]
            word = judge(new, old)
            if word != "inconclusive" or rounds >= 3 * ROUNDS:
                break
            rounds += STEP
        words[word] += 1
    return words


def in_turn(new: list[float], old: list[float]) -> Word:
    return regression([one / other for one, other in zip(new, old, strict=True)], 0.1)[0]


def apart(new: list[float], old: list[float]) -> Word:
    return shift(new, old, 0.1)[0]


@pytest.mark.parametrize("machine", RECORDED)
@pytest.mark.parametrize("judge", [in_turn, apart])
def test_the_same_is_no_change_and_slower_is_found(machine: str, judge: Callable[[list[float], list[float]], Word]) -> None:
    assert len(RECORDED[machine]) == 20
    assert benches(RECORDED[machine], 1.0, judge)["within"] >= 95
    assert benches(RECORDED[machine], 1.15, judge)["exceeded"] >= 90


TIMES = st.lists(st.floats(0.01, 1000), min_size=1, max_size=40)
ENOUGH = st.lists(st.floats(0.01, 1000), min_size=5, max_size=40)


@given(TIMES)
def test_an_estimate_lies_in_its_interval_and_among_the_values(values: list[float]) -> None:
    found = estimate(values)
    assert min(values) <= found.low <= found.middle <= found.high <= max(values)
    assert found.count == len(values)
    assert estimate(values[::-1]) == found


@given(TIMES, st.floats(0.01, 100))
def test_ratios_scale(ratios: list[float], factor: float) -> None:
    one, scaled = estimate_ratio(ratios), estimate_ratio([ratio * factor for ratio in ratios])
    pairs = zip((one.middle, one.low, one.high), (scaled.middle, scaled.low, scaled.high), strict=True)
    assert all(math.isclose(unscaled * factor, found, rel_tol=1e-6) for unscaled, found in pairs)


@given(ENOUGH)
def test_verdicts_agree_with_what_all_values_say(values: list[float]) -> None:
    assert limit(values, max(values))[0] == "within"
    assert limit(values, min(values) / 2)[0] == "exceeded"
    assert regression([2.0] * len(values), 0.1)[0] == "exceeded"
    assert regression([0.5] * len(values), 0.1)[0] == "within"


def test_an_outlier_decides_nothing() -> None:
    steady = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99]
    assert regression([*steady, 9.0], 0.1)[0] == "within"
    assert regression([1.2 * ratio for ratio in steady] + [0.1], 0.1)[0] == "exceeded"
    assert regression([2.0] * 4, 0.1)[0] == limit([2.0] * 4, 1.0)[0] == shift([2.0] * 4, [1.0] * 9, 0.1)[0] == "inconclusive", (
        "too few"
    )
