"""One recorded call of init, as the passes over a trace take it."""

from typing import Any

from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace.records import InitCall, Weight
from tidalctl.artifacts.trace.tape import TapeRead, TapeStep


class EventInit(Record, frozen=True):
    """One recorded call of init, with the event that it was for, and the files that were opened in it, as they were named."""

    event: dict[str, Any]
    call: InitCall
    weights: tuple[Weight, ...]
    records: tuple[TapeRead | TapeStep, ...]
    opened: tuple[str, ...]
