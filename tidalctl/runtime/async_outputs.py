"""Outputs of async handlers as they leave a bundle's function, for the caller's event loop."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tidalctl.runtime.template import Template


def guarded_async(result: Any, template: Template, begun: Callable[[], None]) -> Any:
    """Return a coroutine, or an async generator, that gives what a handler's gives, once that is known to be right.

    `begun` is called when it is awaited, or asked for its first piece.
    """
    return _pieces(result, template, begun) if hasattr(result, "__anext__") else _value(result, template, begun)


async def _value(result: Awaitable[Any], template: Template, begun: Callable[[], None]) -> Any:
    begun()
    try:
        _have_weights(template)
        value = await result
    except BaseException:  # raised again: no output will end the start
        template.over()
        raise
    if hasattr(value, "__anext__"):
        return _pieces(value, template, begun)
    template.let_out()
    return value


async def _pieces(stream: AsyncIterator[Any], template: Template, begun: Callable[[], None]) -> AsyncIterator[Any]:
    begun()
    try:
        _have_weights(template)
        async for piece in stream:
            template.let_out()
            yield piece
        template.requirement.refuse_unmet()  # the function may have caught it
    finally:
        template.over()


def _have_weights(template: Template) -> None:
    """Have all weights on their device: other coroutines run meanwhile, so that no operator here may wait for some."""
    if template.weights.on_device:
        template.weights.wait()
