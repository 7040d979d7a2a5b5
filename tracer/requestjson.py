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

    `parsed` are the files, by their absolute paths, whose content `json` was given meanwhile. Other parsers are not watched, and a file
    that only they read is none of these.
    """

    def __init__(self, event: dict[str, Any]) -> None:
        self.compared: set[str] = set()
        self.parsed: set[str] = set()
        self._texts = tuple(value for value in event.values() if isinstance(value, str) and value)
        self._opened: dict[str, str | None] = {}
        self._hearing = contextlib.ExitStack()

    def __enter__(self) -> "RequestJson":
        original = self._decode = json.JSONDecoder.decode

        def decode(decoder: json.JSONDecoder, text: str, *arguments: Any) -> Any:
            return self._noted(text, original(decoder, text, *arguments))

        # where load and loads end, by whatever names they were imported
        setattr(json.JSONDecoder, "decode", decode)  # noqa: B010 - typed with all of its arguments
        self._hearing.enter_context(hearing(self._heard))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hearing.close()
        setattr(json.JSONDecoder, "decode", self._decode)  # noqa: B010

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(path := arguments[0], str) and self._named(path):
            self._opened.setdefault(os.path.abspath(path), None)

    def _named(self, path: str) -> bool:
        return path.endswith(".json") and any(text in path for text in self._texts)

    def _noted(self, text: str, value: Any) -> Any:
        if not self._opened or len(text) > _LARGEST:
            return value
        content = _plain(text)
        files = [path for path, held in self._contents() if held == content]
        self.parsed.update(files)
        return noted_numbers(value, self.compared.add) if files else value

    def _contents(self) -> list[tuple[str, str]]:
        for path, content in list(self._opened.items()):
            if content is None and os.path.isfile(path):
                with open(path, "rb") as file:  # and no question for its size, which would count as init's own
                    data = file.read(_LARGEST + 1)
                self._opened[path] = _plain(data.decode(json.detect_encoding(data), "replace"))
        return [(path, content) for path, content in self._opened.items() if content]


def _plain(text: str) -> str:
    """Whatever its lines end with, which opening it may have changed, and without what stands around it."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()
