"""JSON files that the event names, watched: whether init compares a number in them, or only computes with it."""

import contextlib
import json
import os
from types import TracebackType
from typing import Any

from tidalctl.noted import noted_numbers
from tidalctl.tracer.hearing import hearing

_LARGEST = 2**20  # bytes; what is larger is no settings file


class RequestJson:
    """A context in which what `json` makes of a file with a text of the event in its name has noted numbers.

    `json.loads` is watched for texts that such a file, opened meanwhile, holds. Other parsers are not.
    """

    def __init__(self, event: dict[str, Any]) -> None:
        self.compared: set[str] = set()
        self._texts = tuple(value for value in event.values() if isinstance(value, str) and value)
        self._opened: dict[str, bytes | None] = {}
        self._hearing = contextlib.ExitStack()

    def __enter__(self) -> "RequestJson":
        self._load, self._loads = json.load, json.loads
        setattr(json, "load", self._watched_load)  # noqa: B010 - typed with all of their keywords
        setattr(json, "loads", self._watched_loads)  # noqa: B010
        self._hearing.enter_context(hearing(self._heard))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hearing.close()
        json.load, json.loads = self._load, self._loads

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(path := arguments[0], str) and self._named(path):
            self._opened.setdefault(os.path.abspath(path), None)

    def _named(self, path: str) -> bool:
        return path.endswith(".json") and any(text in path for text in self._texts)

    def _watched_load(self, file: Any, *arguments: Any, **keywords: Any) -> Any:
        value = self._load(file, *arguments, **keywords)
        return noted_numbers(value, self.compared.add) if self._named(str(getattr(file, "name", ""))) else value

    def _watched_loads(self, text: Any, *arguments: Any, **keywords: Any) -> Any:
        value = self._loads(text, *arguments, **keywords)
        if not self._opened or not isinstance(text, str | bytes | bytearray) or len(text) > _LARGEST:
            return value
        content = text.encode() if isinstance(text, str) else bytes(text)
        return noted_numbers(value, self.compared.add) if content in self._contents() else value

    def _contents(self) -> list[bytes]:
        for path, content in list(self._opened.items()):
            if content is None and os.path.isfile(path):
                with open(path, "rb") as file:  # and no question for its size, which would count as init's own
                    self._opened[path] = file.read(_LARGEST + 1)
        return [content for content in self._opened.values() if content is not None]
