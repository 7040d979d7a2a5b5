"""What a bench measured: one record a process, the medians over them, and the JSON that says so. Times are seconds."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from tidalctl.artifacts.records import Record

SCHEMA = 1
VARIANTS: tuple["Variant", ...] = ("eager", "bundle")
IMAGE: "Variant" = "image"  # where the bundle has a process image
BASELINE: "Variant" = "baseline"  # another bundle of the function, for `--baseline`
HOSTED: tuple["Variant", ...] = ("fork", "spare", "second")  # of `--host`
ROWS: tuple["Variant", ...] = (*VARIANTS, BASELINE, IMAGE, *HOSTED)
CACHES: tuple["Cache", ...] = ("warm", "cold")
Variant = Literal["eager", "bundle", "baseline", "image", "fork", "spare", "second"]
Cache = Literal["warm", "cold"]
WIDE = 0.25  # (max - min) / median of the TTFTs past which a median of few runs says little


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One answer: of a fresh process, of a host's worker, or (`second`) of a process that has answered before.

    `ttft_s` and `total_s` count from just before the spawn or the request, `exit_s` from the last output to waitpid.

    `phases` add up to about `total_s`. `resident_before` is the share of bytes in the page cache right before the spawn:
    cold, of everything that was evicted; warm, of the weights that this variant reads. None where there was nothing to ask.
    """

    variant: Variant
    cache: Cache
    ttft_s: float
    total_s: float
    exit_s: float
    phases: dict[str, float]
    own_s: float | None  # tidalctl's share; None for the plain function, which has none
    output_equal: bool | None  # None where the function's plain runs differ among themselves
    resident_before: float | None
    cache_proved: bool
    strategy: str  # "plain", or how the bundle made the state
    fallback: str | None = None
    peak_bytes: int | None = None  # of memory that the process had; None of a worker
    idle_s: float | None = None  # since the process before it ended; None for the first


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A whole bench. `remarks` are what a reader should know about the comparison besides the numbers."""

    machine: dict[str, Any]
    bundle: dict[str, str]
    samples: tuple[Sample, ...]
    remarks: tuple[str, ...] = ()

    @property
    def differing(self) -> tuple[Sample, ...]:
        return tuple(sample for sample in self.samples if sample.output_equal is False)


class Spread(msgspec.Struct, frozen=True):
    median: float
    least: float
    most: float
    count: int

    @property
    def wide(self) -> bool:
        return self.most - self.least > WIDE * self.median


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values), len(values))


def of(samples: Iterable[Sample], variant: Variant, cache: Cache) -> list[Sample]:
    return [sample for sample in samples if sample.variant == variant and sample.cache == cache]


def speedup(samples: Sequence[Sample], cache: Cache, variant: Variant = "bundle") -> float | None:
    """How many times sooner the first token comes from the bundle, or its image: the ratio of the medians. None without both."""
    eager, bundle = of(samples, "eager", cache), of(samples, variant, cache)
    if not eager or not bundle:
        return None
    return spread([s.ttft_s for s in eager]).median / spread([s.ttft_s for s in bundle]).median


def against_second(samples: Sequence[Sample], variant: Variant) -> float | None:
    """How long the first token of a host takes, to that of a later call in one process: the ratio of the medians."""
    hosted, second = of(samples, variant, "warm"), of(samples, "second", "warm")
    if not hosted or not second:
        return None
    return spread([s.ttft_s for s in hosted]).median / spread([s.ttft_s for s in second]).median


def median_phases(samples: Sequence[Sample]) -> dict[str, float]:
    """Each phase's median, in the order of the first sample; a phase that a run did not have counts as zero there."""
    names = dict.fromkeys(name for sample in samples for name in sample.phases)
    return {name: statistics.median(sample.phases.get(name, 0.0) for sample in samples) for name in names}


def document(measured: Measured, verdicts: Sequence[Record] = ()) -> dict[str, Any]:
    """The JSON of `--json`, with every sample in it in the order in which they ran. `verdicts` are the findings on limits."""
    hosted = {variant: ratio for variant in HOSTED[:2] if (ratio := against_second(measured.samples, variant)) is not None}
    image = {cache: speedup(measured.samples, cache, IMAGE) for cache in CACHES}
    return {
        "schema": SCHEMA,
        "machine": measured.machine,
        "bundle": measured.bundle,
        "speedup": {cache: speedup(measured.samples, cache) for cache in CACHES},
        **({"image_speedup": image} if any(image.values()) else {}),
        **({"against_second": hosted} if hosted else {}),
        "medians": {
            cache: {variant: msgspec.to_builtins(spread([s.ttft_s for s in found])) for variant, found in rows.items() if found}
            for cache in CACHES
            if any((rows := {variant: of(measured.samples, variant, cache) for variant in ROWS}).values())
        },
        "verdicts": msgspec.to_builtins(list(verdicts)),
        "samples": [msgspec.to_builtins(sample) for sample in measured.samples],
    }
