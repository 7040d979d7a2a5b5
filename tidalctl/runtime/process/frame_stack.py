"""Room for Python's frames: without it, imports that are deep take memory from the system and give it back at every other call.

Python keeps frames in chunks of 16 kB, and unmaps a chunk as soon as its first frame returns. A call that happens to
begin a chunk maps, touches and unmaps it each time, and with a second thread on another core each of that interrupts both. A frame
that wants a lot of stack is given a chunk of its size, rounded up to a power of two, whose rest is for the frames of what it calls.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

SLOTS = 65 * 1024  # of 8 bytes, none of which is touched: just over half a mebibyte, so that as much is left of one
Result = TypeVar("Result")


def _call(function: Callable[[], Any]) -> Any:
    return function()


_roomy = FunctionType(_call.__code__.replace(co_stacksize=SLOTS), globals(), "roomy")


def with_room(function: Callable[[], Result]) -> Result:
    """What the function returns, called where there is room for some thousand frames."""
    result: Result = _roomy(function)
    return result
