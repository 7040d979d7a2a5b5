"""A way of serving: what a replay asks of it. Each implementation has a module of its own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from tidalctl.bench.replay.resources import Usage
from tidalctl.bench.subject import Subject

WAYS: tuple["WayName", ...] = ("plain", "bundle", "host")
WayName = Literal["plain", "bundle", "host"]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One function of a replay: the bundle that it is, or is made plainly from, and the event of all of its requests.

    `request` is that event as JSON, `context` the fields of its context. `mapping` counts the mappings, several functions of which may
    share one.
    """

    subject: Subject
    mapping: int
    request: Any
    context: dict[str, Any]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request. Times are nanoseconds of the monotonic clock; `first_ns` is None where there was no output.

    `start` says how the process that answered came to be: cold or warm, or what a host says. `failed` is why there is no answer.
    """

    start: str
    done_ns: int
    first_ns: int | None = None
    output: Any = None
    strategy: str | None = None
    cause: str | None = None
    failed: str | None = None


class Serving(ABC):
    """A way of serving some functions. Used as a context: what it has started is gone at its end.

    `answer` is called from a thread for each request, by many at once.
    """

    def __enter__(self) -> "Serving":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @abstractmethod
    def open(self) -> None:
        """Make ready for the first request. Raises TidalError where that can't be."""

    @abstractmethod
    def answer(self, function: str) -> Answer:
        """Answer one request for this function, and say how that went. Failures are answers, too."""

    @abstractmethod
    def roots(self) -> list[int]:
        """Ids of the processes that it has started and not waited for; what these have started counts with them."""

    @abstractmethod
    def used(self) -> Usage:
        """What all of its processes have used so far, those that are gone and what they have started included."""

    @abstractmethod
    def hold(self, memory: Mapping[int, int]) -> None:
        """Look at the memory of each of the roots, in bytes; called about every second: keep to a bound, where there is one."""

    @abstractmethod
    def close(self) -> None:
        """End every process that it has started. May be called again."""
