"""The times of a start that compile measured, which `plan` goes by."""

from typing import Annotated

import msgspec

from tidalctl.artifacts.records import Record

Seconds = Annotated[float, msgspec.Meta(ge=0)]


class StartTimes(Record, frozen=True):
    """A start without waiting for weights, in seconds from the start of the process: as compile's proof saw it.

    `begin_s` loading begins, `ready_s` the handler begins to compute, `compute_s` from there to the first token.
    `traced_compute_s` is the same under tracing, to which the weights' first uses refer.
    """

    begin_s: Seconds
    ready_s: Seconds
    compute_s: Seconds
    traced_compute_s: Seconds
