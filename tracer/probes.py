"""What init asks of paths that the event names, other than by opening them: what it does may hang on the answers."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from tidalctl.tracer.hearing import hearing

# who gets texts and reads what they name without opening it in this process, or without a word
_OUTSIDE = {
    "sqlite3.connect": "sqlite3",
    "subprocess.Popen": "another process",
    "os.posix_spawn": "another process",
    "os.exec": "another process",
    "os.system": "a shell",
    "ctypes.dlopen": "the dynamic linker",
}
_CODE = (".py", ".pyc")  # which is no data for a script to check
_EXISTENCE = ("exists", "lexists", "isfile", "isdir", "islink", "is_file", "is_dir", "is_symlink", "resolve")
_PATHS = ("<frozen genericpath>", "<frozen posixpath>", "genericpath.py", "posixpath.py", "pathlib.py")


class PathProbes:
    """A context in which `os.stat`, and so `os.path.exists` and `Path.exists`, notes paths with a text of the event in them.

    `found` says of each path whether it was there. `beyond` are texts with one of the event's in them that were handed to somebody
    whom no one follows, and paths of which more was asked than whether they are there: with who or what it was. Listing a folder,
    `os.access` and calls from C are not noted.
    """

    def __init__(self, event: dict[str, Any]) -> None:
        self.found: dict[str, bool] = {}
        self.beyond: dict[str, str] = {}
        self._texts = tuple(value for value in event.values() if isinstance(value, str) and value)
        self._hearing = contextlib.ExitStack()

    def __enter__(self) -> "PathProbes":
        self._stat: Callable[..., os.stat_result] = os.stat
        os.stat = self._noting
        self._hearing.enter_context(hearing(self._heard))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hearing.close()
        os.stat = self._stat

    def _named(self, text: str) -> bool:
        return any(own in text for own in self._texts)

    def _noting(self, path: Any, *arguments: Any, **keywords: Any) -> os.stat_result:
        there = False
        try:
            result = self._stat(path, *arguments, **keywords)
            there = True
            return result
        finally:
            if isinstance(path, str | os.PathLike) and self._named(name := str(os.fspath(path))):
                self.found.setdefault(name, there)
                if there and not _asks_existence(sys._getframe(1)):
                    self.beyond.setdefault(name, "os.stat")

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and (texts := list(_texts_in(arguments[0]))) and texts[0].endswith(_CODE):
            who = "Python"
        elif event in _OUTSIDE:
            who, texts = _OUTSIDE[event], list(_texts_in(arguments))
        else:
            return
        for text in texts:
            if self._named(text):
                self.beyond.setdefault(text, who)


def _texts_in(value: object) -> Iterator[str]:
    """The texts among an audit event's arguments, but those of an environment."""
    if isinstance(value, str | bytes | os.PathLike):
        yield str(os.fsdecode(value))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts_in(item)


def _asks_existence(frame: FrameType | None) -> bool:
    """Whether the caller of os.stat is of those that only look whether a path is there, and a file, a folder or a loop of links."""
    while frame is not None and frame.f_code.co_filename.endswith(_PATHS):
        if frame.f_code.co_name in _EXISTENCE:
            return True
        frame = frame.f_back
    return False
