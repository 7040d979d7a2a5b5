"""The front of a host: knows the functions that are served, hands requests on, and has spares made when the machine is idle.

It never imports torch, nor a user's module. When it ends, everything ends that it has started.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from tidalctl.host.kept_template import NotServed
from tidalctl.host.room import Room
from tidalctl.host.served_function import ServedFunction

LOOK_EVERY_S = 1.0
QUIET_S = 0.05  # after the last event, until spares are made


class Front:
    """Functions by name. `spares` are had ready of each that is in use; `memory` bounds the bytes that all of it holds.

    `tell` is called with what has happened to a function: its latest template is `ready`, or has `failed` or `ended`, or is `evicted`
    for memory. To be made in a running event loop.
    """

    def __init__(
        self, spares: int = 1, memory: int | None = None, tell: Callable[[str, ServedFunction], None] = lambda *_: None
    ) -> None:
        self.functions: dict[str, ServedFunction] = {}
        self._tell = tell
        self._room = Room(memory, self.functions, lambda function: tell("evicted", function))
        self.ended = asyncio.Event()
        self._spares = spares
        self._making_spares: asyncio.TimerHandle | None = None
        self._beside: set[asyncio.Task[None]] = set()
        self._busy_at_once = max(1, (os.cpu_count() or 1) // 2)

    def add(
        self, name: str, bundle: str, environ: Mapping[str, str], directory: str, *, follow: bool = False
    ) -> ServedFunction:
        """Serve a bundle under a name from now on (see ServedFunction)."""
        served = ServedFunction(name, bundle, environ, directory, self._changed, self._tell, self._spares, follow=follow)
        self.functions[name] = served
        return served

    async def drop(self, function: ServedFunction) -> None:
        """Serve it no longer, and end its processes."""
        self.functions.pop(function.name, None)
        await function.end()

    async def end(self) -> None:
        """End everything."""
        self.ended.set()
        if self._making_spares is not None:
            self._making_spares.cancel()
        await asyncio.gather(*(self.drop(function) for function in list(self.functions.values())))

    async def hand(self, function: ServedFunction, message: dict[str, Any], descriptors: list[int]) -> None:
        """Have a worker of a function answer a request. Raises NotServed where none can. The descriptors stay the caller's."""
        self._room.asked(function)
        for attempt in range(2):
            await self._room.make(function)
            template = function.template()
            try:
                await template.hand(message, descriptors)
                return
            except NotServed:
                if template.state != "ended" or attempt:  # a template that had been ready is made again, once
                    raise

    def has_room(self, function: ServedFunction) -> bool:
        """Whether a function's template can be made without another's being dropped for it. Raises NotServed where it never can."""
        return self._room.has(function)

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done beside everything else, until the front ends."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    @property
    def running(self) -> int:
        """Events that are being answered."""
        return sum(function.running for function in self.functions.values())

    def status(self) -> list[dict[str, Any]]:
        """Return what `tidalctl ps` shows of each function."""
        return [function.status() for function in self.functions.values()]

    async def look(self) -> None:
        """Look after the templates: end older ones, learn what they hold, replace lost spares, keep within the bound of memory."""
        for function in list(self.functions.values()):
            await function.tidy()
            function.ask_memory()
        if self._making_spares is None:
            self._make_spares()  # of those that were lost
        await self._room.keep_within()

    def _changed(self) -> None:
        self._room.changed()
        if self._making_spares is None and not self.ended.is_set():
            self._making_spares = asyncio.get_running_loop().call_later(QUIET_S, self._make_spares)

    def _make_spares(self) -> None:
        """Have spares made, where no more events are being answered than leave a processor to that."""
        self._making_spares = None
        if self.running >= self._busy_at_once or self._room.full():
            return  # the end of an event is a change
        for function in self.functions.values():
            template = function.current
            in_use = template is not None and (template.answered or template.spawned)
            if template is not None and in_use and template.spares < function.wanted_spares:
                template.make_spares(function.wanted_spares)


async def look_after(front: Front) -> None:
    """Look after the front's templates each second, until it ends."""
    while not front.ended.is_set():
        await front.look()
        with suppress(TimeoutError):
            await asyncio.wait_for(front.ended.wait(), LOOK_EVERY_S)
