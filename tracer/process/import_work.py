"""Notes what imports work out anew in every process: texts that are compiled, patterns, and folders that a library looks through.

Python's own modules are given a global of the name of the builtin that they call, and lose it again; a library's cached function gets
another body, which calls the old one, and gets that back.
"""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType, TracebackType
from typing import Any

from tidalctl.artifacts.bundle.import_cache import CACHED, MODES, SCANS, NotPlain, Text, read_contents, scanned_folder, to_plain
from tidalctl.artifacts.records import digest_json
from tidalctl.artifacts.trace.records import FolderScan, ImportWork

_COMPILING = {"dataclasses": "exec", "collections": "eval"}
_AUTOMATA = "re._compiler"
# what a scan's function may ask for: anything else, and it may look at more than the sources
_ASKED_FOR = {
    *("os", "path", "isfile", "dirname", "join", "scandir", "name", "is_dir", "open", "read"),
    *("startswith", "endswith", "split", "strip", "append", "remove", "extend", "add", "items"),
    *("tuple", "set", "list", "frozenset", "sorted", "len", "enumerate", "ValueError", "IndexError"),
    *("fetch__all__", "BASE_FILE_REQUIREMENTS"),
}


class WorkRecorder:
    """A context in which work is noted. `imported` is to be told of each module that has run."""

    def __init__(self) -> None:
        self._texts: dict[Text, None] = {}
        self._patterns: dict[tuple[str, bool, int], None] = {}
        self._scans: dict[tuple[str, bool], FolderScan] = {}
        self._undo: list[Callable[[], None]] = []
        self._scanning = threading.local()
        self._over = False

    def __enter__(self) -> "WorkRecorder":
        for name in (*_COMPILING, _AUTOMATA, *SCANS):
            if name in sys.modules:
                self.imported(sys.modules[name])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """All is as it was: the handler need not see what it would not see otherwise. What it imports itself is not noted."""
        self._over = True
        while self._undo:
            self._undo.pop()()

    def imported(self, module: ModuleType) -> None:
        if self._over:
            return
        name, names = module.__name__, vars(module)
        if name in _COMPILING and _COMPILING[name] not in names:
            builtin = _COMPILING[name]
            names[builtin] = self._noting(builtin, {"exec": exec, "eval": eval}[builtin])
            self._undo.append(lambda: names.pop(builtin, None))
        elif name == _AUTOMATA:
            original = names["compile"]
            names["compile"] = self._noting_pattern(original)
            self._undo.append(lambda: names.update(compile=original))
        elif name in SCANS:
            self._watch_scan(name, SCANS[name], names.get(SCANS[name]))

    def work(self) -> ImportWork:
        return ImportWork(texts=tuple(self._texts), patterns=tuple(self._patterns), scans=tuple(self._scans.values()))

    def _noting(self, mode: str, builtin: Callable[..., Any]) -> Callable[..., Any]:
        assert mode in MODES

        def note(source: Any, names: Any, locals: Any = None, /) -> Any:  # noqa: A002 - as the builtins call it
            if type(source) is str and _writable(source):
                self._texts.setdefault((mode, source))
            return builtin(source, names, locals)

        return note

    def _noting_pattern(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def noting(pattern: Any, flags: int = 0) -> Any:
            made = original(pattern, flags)
            if type(pattern) is bytes:
                self._patterns.setdefault((pattern.decode("latin-1"), True, int(flags)))
            elif type(pattern) is str and _writable(pattern):
                self._patterns.setdefault((pattern, False, int(flags)))
            return made

        return noting

    def _watch_scan(self, module: str, name: str, cached: Any) -> None:
        function = getattr(cached, "__wrapped__", None)
        if not isinstance(cached, CACHED) or not isinstance(function, FunctionType):
            return
        if not _ASKED_FOR.issuperset({*function.__code__.co_names} - {name}):
            return
        code, defaults = function.__code__, function.__defaults__
        if code.co_argcount != 1 or code.co_flags & 0x0C or code.co_freevars:  # *args, **kwargs
            return
        original = FunctionType(code, function.__globals__, name, defaults)

        def scan(path: Any) -> Any:
            outermost = not vars(self._scanning).get("inside")
            self._scanning.inside = True
            try:
                made = original(path)
            finally:
                self._scanning.inside = not outermost
            if outermost:
                self._note_scan(module, name, path, made)
            return made

        function.__code__, function.__defaults__ = _through.__code__, (scan,)

        def undo() -> None:
            function.__code__, function.__defaults__ = code, defaults

        self._undo.append(undo)

    def _note_scan(self, module: str, name: str, path: Any, made: Any) -> None:
        given = str(path)
        if type(path) not in (str, type(Path())) or not given.startswith("/"):
            return
        try:
            plain, contents = to_plain(made), digest_json(read_contents(scanned_folder(given)))
        except (OSError, NotPlain):
            return
        pathlike = not isinstance(path, str)
        self._scans[given, pathlike] = FolderScan(
            module=module, function=name, path=given, pathlike=pathlike, made=plain, contents=contents
        )


def _through(path: Any, scan: Any) -> Any:
    return scan(path)


def _writable(text: str) -> bool:
    """Whether a record can hold it: half of a surrogate pair, as patterns have them, has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
