"""What a replay measured: one record a request, the figures over them, and the JSON that says so. Times are seconds."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from tidalctl.bench.replay.resources import Usage
from tidalctl.bench.replay.serving import WayName

SCHEMA = 1
ENOUGH = {0.5: 2, 0.95: 20, 0.99: 100}  # samples that a percentile needs, for one of them to lie above it


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `due_s` is when it was due, from the beginning, and `late_s` how much later it was sent.

    `ttft_s` and `total_s` count from when it was due; they are None where there is no answer. `output_equal` is None, too, where the
    function's plain runs differ among themselves.
    """

    function: str
    mapping: int
    due_s: float
    late_s: float
    start: str
    ttft_s: float | None
    total_s: float | None
    output_equal: bool | None
    strategy: str | None = None
    cause: str | None = None
    failed: str | None = None


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One way of serving. `opening` is what it used before the first request, in `opening_s`, and `serving` what it used from then on.

    `peak_memory` is the highest sum of proportional set sizes that was seen; None where the kernel did not tell.
    """

    name: WayName
    samples: tuple[Sample, ...]
    opening_s: float
    opening: Usage
    serving_s: float
    serving: Usage
    peak_memory: int | None

    @property
    def failed(self) -> tuple[Sample, ...]:
        return tuple(sample for sample in self.samples if sample.failed is not None)

    @property
    def differing(self) -> tuple[Sample, ...]:
        return tuple(sample for sample in self.samples if sample.output_equal is False)

    @property
    def ttfts(self) -> list[float]:
        return sorted(sample.ttft_s for sample in self.samples if sample.ttft_s is not None)

    @property
    def starts(self) -> Counter[str]:
        return Counter(sample.start for sample in self.samples)

    def within(self, slo_s: float) -> float:
        """The share of all requests whose first token came in time; one that failed has not."""
        return sum(ttft <= slo_s for ttft in self.ttfts) / len(self.samples)


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """A whole replay. `arrivals` says what was replayed, `maps` what served it."""

    machine: dict[str, Any]
    arrivals: dict[str, Any]
    maps: tuple[dict[str, Any], ...]
    slo_s: float
    keep_warm_s: float
    memory: int | None
    ways: tuple[Way, ...]
    remarks: tuple[str, ...] = ()


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The least value that this share of the values does not exceed (nearest rank). None where there are too few values to say it."""
    if len(ordered) < ENOUGH[share]:
        return None
    return ordered[math.ceil(share * len(ordered) - 1e-9) - 1]


def figures(way: Way, slo_s: float) -> dict[str, Any]:
    """The numbers over a way's samples, as `--json` has them."""
    ttfts = way.ttfts
    late = sorted(sample.late_s for sample in way.samples)
    return {
        "requests": len(way.samples),
        "starts": dict(sorted(way.starts.items())),
        "failed": len(way.failed),
        "differing": len(way.differing),
        "ttft_s": {f"p{share * 100:g}": percentile(ttfts, share) for share in ENOUGH} | {"max": max(ttfts, default=None)},
        "within_slo": way.within(slo_s),
        "cpu_s": way.serving.cpu_s,
        "read_bytes": way.serving.read_bytes,
        "peak_memory_bytes": way.peak_memory,
        "seconds": way.serving_s,
        "opening": {"seconds": way.opening_s, "cpu_s": way.opening.cpu_s, "read_bytes": way.opening.read_bytes},
        "late_s": {"p50": percentile(late, 0.5), "max": late[-1]},
    }


def cold_share(replayed: Replayed) -> float | None:
    """The share of requests for which the plain way had to start a process. None where it was not measured."""
    return next((way.starts["cold"] / len(way.samples) for way in replayed.ways if way.name == "plain"), None)


def document(replayed: Replayed) -> dict[str, Any]:
    """The JSON of `--json`, with every sample in it in the order in which they were due."""
    return {
        "schema": SCHEMA,
        "machine": replayed.machine,
        "arrivals": replayed.arrivals,
        "maps": list(replayed.maps),
        "slo_s": replayed.slo_s,
        "keep_warm_s": replayed.keep_warm_s,
        "memory_bytes": replayed.memory,
        "plain_cold_share": cold_share(replayed),
        "ways": [
            {
                "way": way.name,
                **figures(way, replayed.slo_s),
                "samples": [msgspec.to_builtins(sample) for sample in way.samples],
            }
            for way in replayed.ways
        ],
        "remarks": list(replayed.remarks),
    }
