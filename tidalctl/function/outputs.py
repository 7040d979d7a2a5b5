"""The outputs of a handler: pieces, streams, JSON."""

import json
from collections.abc import Iterator
from types import GeneratorType
from typing import Any

from tidalctl.artifacts.errors import FunctionError


def pieces(result: Any) -> Iterator[Any]:
    """What a handler gave, piece by piece: the values that it yields, or the one that it returned."""
    if isinstance(result, GeneratorType) or (isinstance(result, Iterator) and not hasattr(result, "read")):
        yield from result
    else:
        yield result


def is_stream(result: Any) -> bool:
    return isinstance(result, Iterator)


def json_text(value: Any, handler: str = "the handler") -> str:
    """A piece of output as JSON. Raises FunctionError where it is none, since no two runs of it could be compared."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
        return text
    except (TypeError, ValueError) as error:
        raise FunctionError(
            f"{handler} gave a value that is not JSON: {error}", "return or yield strings, numbers, lists, dicts"
        ) from None
