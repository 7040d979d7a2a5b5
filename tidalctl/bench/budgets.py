"""What a start from a bundle may take: limits, whether what was measured keeps them, and how each is told."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.records import Record
from tidalctl.bench.samples import Cache, Measured, of
from tidalctl.bench.verdict import Estimate, Word, limit, regression, shift
from tidalctl.report.terminal import seconds_text, size_text

CACHE: Cache = "warm"  # the state of the page cache that is judged
STEP, MOST = 5, 3  # rounds that are added while a verdict is open, up to so many times those that were asked for


class Budgets(Record, frozen=True):
    """Limits; None where there is none.

    Attributes:
        ttft_s: Seconds to the first output.
        regression: Allowed growth of the time to the first output, against the baseline: 0.1 for ten per cent.
        size: Bytes of the bundle, without its process image.
        rss: Bytes of memory that a start has at its peak.
        baseline: Ratios of bundle to plain of an earlier bench; empty where the baseline is a bundle, measured in turn.
    """

    ttft_s: float | None = None
    regression: float | None = None
    size: int | None = None
    rss: int | None = None
    baseline: tuple[float, ...] = ()


class Finding(Record, frozen=True):
    """One limit, and whether it is kept. `text` is a line for a person."""

    budget: str
    verdict: Word
    limit: float
    estimate: Estimate
    text: str


def judge(measured: Measured, budgets: Budgets, size: int) -> list[Finding]:
    """Judge what was measured so far of a bundle of `size` bytes."""
    return list(_findings(measured, budgets, size))


def _findings(measured: Measured, budgets: Budgets, size: int) -> Iterator[Finding]:
    ours = of(measured.samples, "bundle", CACHE)
    times = [sample.ttft_s for sample in ours]
    if budgets.ttft_s is not None and times:
        word, found = limit(times, budgets.ttft_s)
        text = f"first output from the bundle after {_interval(found, seconds_text)}, and {seconds_text(budgets.ttft_s)} is the most"
        yield Finding("max-ttft", word, budgets.ttft_s, found, text)
    if budgets.regression is not None and times:
        if budgets.baseline:
            plain = [sample.ttft_s for sample in of(measured.samples, "eager", CACHE)]
            word, found = shift(
                [one / other for one, other in zip(times, plain, strict=False)], budgets.baseline, budgets.regression
            )
            against = "the share of the plain time in the baseline"
        else:
            old = [sample.ttft_s for sample in of(measured.samples, "baseline", CACHE)]
            word, found = regression([one / other for one, other in zip(times, old, strict=False)], budgets.regression)
            against = "the baseline"
        text = f"{_interval(found, '{:.3f}'.format)} of {against}, and {1 + budgets.regression:.2f} is the most"
        yield Finding("max-regression", word, budgets.regression, found, text)
    if budgets.size is not None:
        yield _exact("max-size", size, budgets.size, "the bundle has")
    peaks = [sample.peak_bytes for sample in ours if sample.peak_bytes is not None]
    if budgets.rss is not None and peaks:
        yield _exact("max-rss", max(peaks), budgets.rss, "a start's memory at its peak is")


def _exact(name: str, value: int, most: int, what: str) -> Finding:
    word: Word = "exceeded" if value > most else "within"
    text = f"{what} {size_text(value)}, and {size_text(most)} is the most"
    return Finding(name, word, most, Estimate(value, value, value, 1), text)


def _interval(found: Estimate, text: Any) -> str:
    return f"{text(found.middle)} ({text(found.low)} to {text(found.high)}, 90 %, n = {found.count})"


def wants_more(findings: Sequence[Finding], rounds: int, asked: int) -> int:
    """Return how many further rounds may close what is open, after `rounds` of which so many were `asked` for."""
    open_ones = any(finding.verdict == "inconclusive" for finding in findings)
    return min(STEP, MOST * asked - rounds) if open_ones and rounds < MOST * asked else 0


def read_baseline(path: Path) -> tuple[tuple[float, ...], dict[str, Any]]:
    """Return the ratios of bundle to plain of what `bench --json` has written, and the machine that it was measured on."""
    try:
        body = json.loads(path.read_bytes())
        samples = [sample for sample in body["samples"] if sample["cache"] == CACHE]
        times = {
            variant: [float(one["ttft_s"]) for one in samples if one["variant"] == variant] for variant in ("bundle", "eager")
        }
        ratios = tuple(one / other for one, other in zip(times["bundle"], times["eager"], strict=False))
        machine = dict(body["machine"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TidalError(
            f"--baseline {path} is neither a bundle nor what bench --json writes: {error}", "give one of them"
        ) from None
    if not ratios:
        raise TidalError(
            f"--baseline {path} holds no pairs of plain and bundle over a warm page cache", "measure it anew: bench --json"
        )
    return ratios, machine
