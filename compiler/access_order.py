"""The order in which a trace's weights are first used."""

from typing import TYPE_CHECKING

from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import (
    FirstUse,
    Weight,
)

if TYPE_CHECKING:
    pass


def access_order(trace: Trace) -> dict[str, FirstUse]:
    """The first use of each weight over all events, in order; weights that only a later event used follow."""
    names = {weight.index: weight.names[0] for weight in trace.of(Weight)}
    first: dict[str, FirstUse] = {}
    for use in trace.of(FirstUse):
        first.setdefault(names[use.weight], use)
    return first


def use_digests(trace: Trace) -> dict[str, FirstUse]:
    """The first use of each content that the state's weights have, over all events, in order."""
    digests = {weight.index: weight.digest for weight in trace.of(Weight)}
    first: dict[str, FirstUse] = {}
    for use in trace.of(FirstUse):
        first.setdefault(digests[use.weight], use)
    return first
