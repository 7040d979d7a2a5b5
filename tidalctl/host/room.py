"""Room for templates under a bound: what is worth least is dropped, and what finds no room waits for it."""

import asyncio
import time
from collections.abc import Callable, Sequence

from tidalctl.artifacts.cause import Cause
from tidalctl.host.kept_template import NotServed
from tidalctl.host.memory import IMPORTED, Worth, size_of
from tidalctl.host.served_function import ServedFunction


class Room:
    """Keeps what the templates of `functions` hold within `bound` bytes; without one only counts requests.

    `dropped` is called with a function before its template goes.
    """

    def __init__(
        self, bound: int | None, functions: dict[str, ServedFunction], dropped: Callable[[ServedFunction], None]
    ) -> None:
        self.bound = bound
        self._dropped = dropped
        self._functions = functions
        self._worth = Worth(time.monotonic)
        self._changed = asyncio.Event()
        self._one = asyncio.Lock()  # one is made room for at a time

    def asked(self, function: ServedFunction) -> None:
        """Note that a function was asked for."""
        self._worth.asked(function.name)

    def changed(self) -> None:
        """Something may be idle now that was not."""
        self._changed.set()

    def full(self) -> bool:
        """Whether nothing more should be made that need not be."""
        return self.bound is not None and self.held() > 0.9 * self.bound

    def held(self, apart_from: ServedFunction | None = None) -> int:
        """Return the bytes that templates and workers hold, those that are starting counted with what they are going to hold."""
        return sum(self._held_by(function) for function in self._functions.values() if function is not apart_from)

    def has(self, function: ServedFunction) -> bool:
        """Whether there is room for a function's template as it is. It has its room from then on. Raises NotServed as `make` does."""
        self._refuse_too_large(function)
        held = self.held(function)
        there = self.bound is None or not held or held + self._expected(function) <= self.bound
        if there:
            function.template()
        return there

    async def make(self, function: ServedFunction) -> None:
        """Return when there is room for a function's template, which may be there already. Raises NotServed where there can't be.

        Where nothing else is held, there is room unless the bundle's own files are larger than the bound.
        """
        if self.bound is None or function.current is not None:
            return
        self._refuse_too_large(function)
        async with self._one:
            while function.current is None and (held := self.held(function)) and held + self._expected(function) > self.bound:
                self._changed.clear()
                idle = [one for one in self._functions.values() if one is not function and _idle(one)]
                if not await self._drop_one(idle):
                    await self._changed.wait()
            function.template()  # it holds its room from now on

    def _refuse_too_large(self, function: ServedFunction) -> None:
        if self.bound is not None and (size := size_of(function.bundle)) > self.bound:
            reason = Cause.TEMPLATE_TOO_LARGE.of(need=_text(size), bound=_text(self.bound))
            function.refused = NotServed(reason.code, reason.text)
            raise function.refused

    def _expected(self, function: ServedFunction) -> int:
        """Return the bytes that a template is going to hold: what it held, or its bundle's and what the others' imports hold."""
        if function.most_held:
            return function.most_held
        beside = [one.most_held - size_of(one.bundle) for one in self._functions.values() if one.most_held]
        return size_of(function.bundle) + max(beside, default=IMPORTED)

    def _held_by(self, function: ServedFunction) -> int:
        """Return the bytes that a function's processes hold, or are going to."""
        return function.memory_bytes or (self._expected(function) if function.current is not None else 0)

    async def keep_within(self) -> None:
        """Drop templates until what they are known to hold is within the bound, or all that are left have events."""
        while self.bound is not None and sum(one.memory_bytes for one in self._functions.values()) > self.bound:
            if not await self._drop_one([one for one in self._functions.values() if one.memory_bytes and _idle(one)]):
                return

    async def _drop_one(self, idle: Sequence[ServedFunction]) -> bool:
        """Drop the one of these templates that is worth least. Returns whether there was one."""
        name = self._worth.least((one.name, one.saved_s, self._held_by(one)) for one in idle)
        if name is None:
            return False
        function = self._functions[name]
        self._worth.gone(name, function.saved_s, self._held_by(function))
        function.evictions += 1
        self._dropped(function)
        await function.end()
        return True


def _idle(function: ServedFunction) -> bool:
    return function.current is not None and not function.running


def _text(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
