"""The event loop of async handlers: one for the process, so that what a handler keeps between events stays usable."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

_END = object()
_loop: asyncio.AbstractEventLoop | None = None


def settled(result: Any) -> Any:
    """Return what an async handler gives in the end: run a coroutine, and make a generator of an async generator."""
    while hasattr(result, "__await__") or hasattr(result, "__anext__"):
        result = _driven(result) if hasattr(result, "__anext__") else _the_loop().run_until_complete(_result(result))
    return result


def _driven(stream: AsyncIterator[Any]) -> Iterator[Any]:
    """Yield the pieces of an async generator as they come; between two of them the loop stands still.

    All of the generator runs in one task, as under `async for`, so that its context variables and cancel scopes are its own.
    """
    loop, go_on = _the_loop(), asyncio.Event()
    handed: asyncio.Queue[Any] = asyncio.Queue()

    async def read() -> None:
        try:
            async for piece in stream:
                handed.put_nowait(piece)
                await go_on.wait()
                go_on.clear()
        finally:
            handed.put_nowait(_END)

    task = loop.create_task(read())
    try:
        while (piece := loop.run_until_complete(handed.get())) is not _END:
            yield piece
            go_on.set()
        loop.run_until_complete(task)  # which raises what the generator has raised
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        if hasattr(stream, "aclose"):
            loop.run_until_complete(stream.aclose())


def _the_loop() -> asyncio.AbstractEventLoop:
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_loop)
    return _loop


async def _result(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
