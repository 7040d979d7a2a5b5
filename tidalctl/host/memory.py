"""How much memory templates and their workers hold, and which template goes when that is too much.

The one that saves least goes: its worth is the seconds that it saves a request, times its requests a second, over its bytes, above the
worth of the one that went last (greedy-dual-size-frequency: Cherkasova, HP Labs 1998), so that what was worth much long ago ages.
"""

import math
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

from tidalctl.runtime.process.held_memory import held_memory

RATE_S = 600.0  # over which requests a second are averaged
IMPORTED = 300 * 2**20  # bytes that a function's imports hold beside its bundle's, before any was measured


class Worth:
    """What each function's template is worth. `now` is a clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._floor = 0.0  # the worth of the template that went last
        self._rates: dict[str, tuple[float, float]] = {}  # requests a second, and when that was
        self._floors: dict[str, float] = {}  # the floor when the function was asked for last

    def asked(self, name: str) -> None:
        """Note a request."""
        self._rates[name] = (self.rate(name) + 1 / RATE_S, self._now())
        self._floors[name] = self._floor

    def rate(self, name: str) -> float:
        """Return a function's requests a second, the older the less they count."""
        rate, at = self._rates.get(name, (0.0, 0.0))
        return rate * math.exp((at - self._now()) / RATE_S)

    def of(self, name: str, saved_s: float, held: int) -> float:
        """Return the worth of a template that saves so many seconds a request and holds so many bytes."""
        return self._floors.get(name, 0.0) + saved_s * self.rate(name) / max(held, 1)

    def least(self, candidates: Iterable[tuple[str, float, int]]) -> str | None:
        """Return the one of (name, saved seconds, bytes) that is worth least, or None where there is none."""
        return min(candidates, key=lambda one: self.of(*one), default=("",))[0] or None

    def gone(self, name: str, saved_s: float, held: int) -> None:
        """Note that a template was dropped: what is asked for from now on is worth more than it was."""
        self._floor = max(self._floor, self.of(name, saved_s, held))


def held_by(pids: Collection[int]) -> int:
    """Return the bytes that processes hold: the sum of their proportional set sizes. One that has ended holds none."""
    return sum(held_memory(pid) or 0 for pid in pids)


def size_of(bundle: str) -> int:
    """Return the bytes of a bundle's files, which its weights are most of."""
    total = 0
    for file in Path(bundle).rglob("*"):
        with suppress(OSError):
            total += file.stat().st_size
    return total
