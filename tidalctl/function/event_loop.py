"""The event loop of async handlers: one for the process, so that what a handler keeps between events stays usable."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

_END = object()
_loop: asyncio.AbstractEventLoop | None = None


def run_until_done(awaitable: Awaitable[Any]) -> Any:
    """Run an awaitable to its end, and return what it gives."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_loop)
    return _loop.run_until_complete(_result(awaitable))


def driven(stream: AsyncIterator[Any]) -> Iterator[Any]:
    """Yield the pieces of an async generator as they come; between two of them the loop stands still."""
    try:
        while (piece := run_until_done(anext(stream, _END))) is not _END:
            yield piece
    finally:
        if hasattr(stream, "aclose"):
            run_until_done(stream.aclose())


async def _result(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
