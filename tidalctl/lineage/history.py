"""What a tape knows of one storage, and of an operator's operands."""

from typing import Any

from tidalctl.artifacts.trace.records import Source


class StorageHistory:
    """What the tape knows of one storage now."""

    def __init__(self, number: int, pin: Any) -> None:
        self.number = number
        self.pin = pin  # keeps the address from being given out twice
        self.identity = ""
        self.sources: tuple[Source, ...] = ()
        self.operators: tuple[str, ...] = ()
        self.first: int | None = None  # the first value over it


class Call:
    """An operator's operands as they were before it ran."""

    def __init__(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any], draws: str) -> None:
        self.name = name
        self.arguments = arguments
        self.keywords = keywords
        self.draws = draws
