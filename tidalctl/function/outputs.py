"""The outputs of a handler: pieces, streams, JSON."""

import json
from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Any


def called(handler: Callable[[Any, Any], Any], event: Any, context: Any) -> Any:
    """Call a handler, and return what it gives: of an async one what it gives in the end, of an async generator a generator."""
    result = handler(event, context)
    if is_async(result):
        from tidalctl.function.event_loop import settled  # which imports asyncio

        return settled(result)
    return result


def is_async(result: Any) -> bool:
    """Whether a handler gave a coroutine, or another awaitable, or an async generator."""
    return hasattr(result, "__await__") or hasattr(result, "__anext__")


def pieces(result: Any) -> Iterator[Any]:
    """What a handler gave, piece by piece: the values that it yields, or the one that it returned."""
    if isinstance(result, GeneratorType) or (isinstance(result, Iterator) and not hasattr(result, "read")):
        yield from result
    else:
        yield result


def is_stream(result: Any) -> bool:
    return isinstance(result, Iterator)


def answer_of(piece: Any, number: int | None, *, encode: bool) -> Any:
    """Return a piece of output as the answer has it: as it is, or with `encode` converted to JSON (see encoding.py).

    `number` counts the pieces of a stream. Raises FunctionError where a piece can't be converted.
    """
    if not encode:
        return piece
    from tidalctl.function.encoding import encoded

    return encoded(piece, _where(number))


def json_text(value: Any, number: int | None = None) -> str:
    """A piece of output as JSON; `number` counts the pieces of a stream.

    Raises FunctionError where it is none, since no two runs of it could be compared: with the path to what is not, and a remedy.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
        return text
    except (TypeError, ValueError) as error:
        from tidalctl.artifacts.errors import FunctionError
        from tidalctl.function.encoding import ALWAYS, refuse

        refuse(value, _where(number))
        raise FunctionError(f"the handler gave a value that is not JSON: {error}", ALWAYS) from None


def _where(number: int | None) -> str:
    return "" if number is None else f"piece {number}"
