"""Outputs of async handlers as they leave a bundle's function, for the caller's event loop."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any

from tidalctl.runtime.template import Template


async def awaited(result: Awaitable[Any], template: Template) -> Any:
    """Return what a handler gives in the end, once it is known to be right; of an async generator, a guarded one."""
    try:
        _have_weights(template)
        value = await result
    except BaseException:  # raised again: no output will end the start
        template.over()
        raise
    if hasattr(value, "__anext__"):
        return guarded_async(value, template)
    template.wait()
    template.imports.pack.drop()
    return value


async def guarded_async(stream: AsyncIterator[Any], template: Template) -> AsyncIterator[Any]:
    """Pieces of output, none of which leaves before the weights and the code that it came from are known to be right."""
    try:
        _have_weights(template)
        async for piece in stream:
            template.wait()
            template.imports.pack.drop()
            yield piece
        template.requirement.refuse_unmet()  # the function may have caught it
    finally:
        template.over()


def _have_weights(template: Template) -> None:
    """Have all weights on their device: other coroutines run meanwhile, so that no operator here may wait for some."""
    if template.weights.on_device:
        template.weights.wait()
