"""Decides whether measured values keep a limit, by rank tests, whose result single outliers don't change.

The estimate is the Hodges-Lehmann one, the median of the means of all pairs of values; its interval is that of the signed-rank test
(Hollander, Wolfe and Chicken, *Nonparametric Statistical Methods*, 3.2 and 3.3), with the normal approximation of the statistic.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from tidalctl.artifacts.records import Record

Z = 1.645  # of a two-sided interval of 90 %
FEWEST = 5  # values, below which no interval of 90 % is narrower than all of them
Word = Literal["within", "exceeded", "inconclusive"]


class Estimate(Record, frozen=True):
    """A middle value, and the interval in which it lies with 90 % confidence."""

    middle: float
    low: float
    high: float
    count: int


def estimate(values: Sequence[float]) -> Estimate:
    """Estimate the middle of values that scatter about it. Of fewer than five the interval is all of them."""
    ordered = sorted(values)
    means = sorted((one + other) / 2 for number, one in enumerate(ordered) for other in ordered[number:])
    count = len(ordered)
    if count < FEWEST:
        return Estimate(statistics.median(means), ordered[0], ordered[-1], count)
    spread = Z * math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
    cut = max(math.floor(count * (count + 1) / 4 - spread), 0)
    return Estimate(statistics.median(means), means[cut], means[-1 - cut], count)


def estimate_ratio(ratios: Sequence[float]) -> Estimate:
    """Estimate the middle of ratios, of which one and its inverse are equally far from 1."""
    found = estimate([math.log(ratio) for ratio in ratios])
    return Estimate(math.exp(found.middle), math.exp(found.low), math.exp(found.high), found.count)


def regression(ratios: Sequence[float], allowed: float) -> tuple[Word, Estimate]:
    """Judge ratios of new to old, pair by pair, against an `allowed` growth (0.1: ten per cent).

    It is exceeded where the estimate is beyond it, and the whole interval beyond 1; it is kept where the whole interval keeps it.
    Anything else is inconclusive, as are fewer than five pairs.
    """
    found = estimate_ratio(ratios)
    return _grown(found, allowed), found


def _grown(found: Estimate, allowed: float) -> Word:
    if found.count < FEWEST:
        return "inconclusive"
    if found.middle > 1 + allowed and found.low > 1:
        return "exceeded"
    return "within" if found.high <= 1 + allowed else "inconclusive"


def limit(values: Sequence[float], most: float) -> tuple[Word, Estimate]:
    """Judge values against a limit: it is exceeded, or kept, where the whole interval says so. Fewer than five say nothing."""
    found = estimate(values)
    if found.count < FEWEST:
        return "inconclusive", found
    if found.low > most:
        return "exceeded", found
    return ("within" if found.high <= most else "inconclusive"), found


def shift(new: Sequence[float], old: Sequence[float], allowed: float) -> tuple[Word, Estimate]:
    """Judge two samples that were not measured in turn, by the ratios of each of one to each of the other (Mann-Whitney)."""
    logs = sorted(math.log(one / other) for one in new for other in old)
    count, pairs = len(new) * len(old), len(new) + len(old) + 1
    cut = max(math.floor(count / 2 - Z * math.sqrt(count * pairs / 12)), 0)
    few = min(len(new), len(old)) < FEWEST
    low, high = (logs[0], logs[-1]) if few else (logs[cut], logs[-1 - cut])
    found = Estimate(math.exp(statistics.median(logs)), math.exp(low), math.exp(high), min(len(new), len(old)))
    return _grown(found, allowed), found
