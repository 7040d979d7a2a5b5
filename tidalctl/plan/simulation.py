"""What a start will take: the trace's own times against a link's bandwidth.

A start needs two things before a weight is used: everything before it has been computed, and the weight has arrived. With `ready` the
time at which the handler begins to compute, `use(w)` the compute time before the first use of weight w, `begin` the time at which
loading begins, `bytes(w)` the bytes up to and with w in access order, and B the bandwidth,

    first token = ready + compute + max(0, max over w of (begin + (bytes(w) - resident) / B - ready - use(w)))

since what one weight delays, it delays for all that follow. The resident prefix that makes loading vanish is therefore the
largest, over all weights, of bytes(w) - B * (ready - begin + use(w)). TIDAL's
form (arXiv 2503.06421) takes all bytes, and the whole execution instead of what comes before each weight.

Limits: a weight that the trace saw no use of costs nothing here, and reading and checking are taken to overlap wholly.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

from tidalctl.artifacts.bundle.manifest import BundleWeight
from tidalctl.artifacts.bundle.start_times import StartTimes
from tidalctl.artifacts.bundle.weight_groups import GROUP_SIZE, plan_groups
from tidalctl.artifacts.records import Record


class Link(Record, frozen=True):
    """What weights come over, in bytes a second: `read` brings them and `hash` checks them meanwhile. The slower one counts."""

    read: float
    hash: float = math.inf

    @property
    def bandwidth(self) -> float:
        return min(self.read, self.hash)


class Arrival(Record, frozen=True):
    """A group of weights, named by its first: when it is there, and when it would be used if nothing waited. Seconds, bytes."""

    weight: str
    bytes_before: int  # with its own
    arrives_s: float
    used_s: float

    @property
    def late_s(self) -> float:
        return self.arrives_s - self.used_s


class StartPlan(Record, frozen=True):
    """A simulated start. `critical` is the group that holds the first token up the most; None where none does."""

    ttft_s: float
    unhindered_s: float
    waiting_s: float
    critical: Arrival | None
    arrivals: tuple[Arrival, ...]
    resident_prefix: int  # bytes that make the waiting vanish
    resident_prefix_warm: int  # the same for a process that has imported everything already
    resident_prefix_tidal: int
    bytes: int  # of weights that are used


def simulate(
    weights: Sequence[BundleWeight],
    uses: Mapping[str, float],
    times: StartTimes,
    bandwidth: float,
    resident: int = 0,
    group_size: int = GROUP_SIZE,
) -> StartPlan:
    """Simulate a start over a link of `bandwidth` bytes a second with `resident` bytes there from the beginning.

    `uses` gives the seconds of the weights' first uses, by name, as the provenance has them.
    A group arrives whole, and is used when the first of its weights is.
    """
    arrivals: list[Arrival] = []
    total = 0
    for group in plan_groups(weights, group_size):
        used = [uses[weight.name] for weight in group.weights if weight.name in uses]
        if not used:
            continue
        total += group.nbytes
        share = min(min(used) / times.traced_compute_s, 1.0) if times.traced_compute_s > 0 else 0.0
        arrivals.append(
            Arrival(
                weight=group.weights[0].name,
                bytes_before=total,
                arrives_s=times.begin_s + max(total - resident, 0) / bandwidth,
                used_s=times.ready_s + share * times.compute_s,
            )
        )
    critical = max(arrivals, key=lambda arrival: arrival.late_s, default=None)
    waiting = max(critical.late_s, 0.0) if critical is not None else 0.0
    unhindered = times.ready_s + times.compute_s
    return StartPlan(
        ttft_s=unhindered + waiting,
        unhindered_s=unhindered,
        waiting_s=waiting,
        critical=critical if waiting > 0 else None,
        arrivals=tuple(arrivals),
        resident_prefix=_prefix(arrivals, times.begin_s, bandwidth, total),
        resident_prefix_warm=_prefix(arrivals, times.ready_s, bandwidth, total),
        resident_prefix_tidal=min(max(math.ceil(total - bandwidth * times.compute_s), 0), total),
        bytes=total,
    )


def _prefix(arrivals: Sequence[Arrival], begin_s: float, bandwidth: float, total: int) -> int:
    """The tight form: the largest, over all weights, of the bytes up to it minus what the link brings before its first use."""
    needed = max((a.bytes_before - bandwidth * (a.used_s - begin_s) for a in arrivals), default=0.0)
    return min(max(math.ceil(needed), 0), total)


class Improvement(Record, frozen=True):
    """What something faster would buy: the first token with it, in seconds."""

    what: str
    ttft_s: float


def improvements(
    weights: Sequence[BundleWeight],
    uses: Mapping[str, float],
    times: StartTimes,
    link: Link,
    resident: int,
    image_s: float | None = None,
) -> tuple[Improvement, ...]:
    """The same start with one thing better at a time, the best first.

    `image_s` is the time after which a start from the bundle's process image has its state; None where there is no image.
    """
    half = msgspec.structs.replace(times, compute_s=times.compute_s / 2)
    lead = times.ready_s - times.begin_s
    quick = msgspec.structs.replace(times, ready_s=times.begin_s + lead / 2)
    warm = msgspec.structs.replace(times, begin_s=0.0, ready_s=0.0)
    prefix = simulate(weights, uses, times, link.bandwidth).resident_prefix
    cases = {
        "twice the bandwidth": (times, min(link.read * 2, link.hash), resident),
        "twice the compute": (half, link.bandwidth, resident),
        "half the imports": (quick, link.bandwidth, resident),
        "a process that has imported everything": (warm, link.bandwidth, resident),
    }
    if image_s is not None:
        restored = msgspec.structs.replace(times, begin_s=0.0, ready_s=image_s)
        cases["the bundle's process image (restored from image)"] = (restored, link.bandwidth, resident)
    if link.hash < link.read:
        cases["weights that nobody checks"] = (times, link.read, resident)
    if prefix > resident:
        cases["the prefix that makes loading vanish resident"] = (times, link.bandwidth, prefix)
    found = [Improvement(what=what, ttft_s=simulate(weights, uses, *case).ttft_s) for what, case in cases.items()]
    return tuple(sorted(found, key=lambda one: one.ttft_s))
