"""Environment variables that the project's own code reads before the handler has its state, since the state may depend on them.

Reads by libraries are left out: they read hundreds, and what of them matters is the fingerprint's business. Values are kept as digests.
"""

import os
import sys
from types import TracebackType
from typing import Any

from tidalctl.artifacts.records import digest_json
from tidalctl.tracer.clock import TraceClock

_BETWEEN = (
    "<frozen os>",
    "<frozen _collections_abc>",
    "<frozen posixpath>",
    os.__file__,
    "_collections_abc.py",
    "posixpath.py",
)


class EnvironRecorder:
    """A context in which reads of os.environ are noted: the variable and a digest of [its value], or of [null] where unset."""

    def __init__(self, clock: TraceClock, root: str) -> None:
        self._clock = clock
        self._root = root + os.sep
        self.reads: dict[str, str] = {}

    def __enter__(self) -> "EnvironRecorder":
        kind = type(os.environ)
        self._original = original = kind.__getitem__
        recorder = self

        def getitem(environ: Any, key: Any) -> Any:
            if environ is os.environ and isinstance(key, str) and recorder._clock.phase != "handler" and recorder._by_project():
                try:
                    recorder.reads.setdefault(key, digest_json([original(environ, key)]))
                except KeyError:
                    recorder.reads.setdefault(key, digest_json([None]))
            return original(environ, key)

        kind.__getitem__ = getitem  # type: ignore[method-assign]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        type(os.environ).__getitem__ = self._original  # type: ignore[method-assign]

    def _by_project(self) -> bool:
        frame = sys._getframe(2)
        while frame.f_back is not None and frame.f_code.co_filename.endswith(_BETWEEN):
            frame = frame.f_back
        name = frame.f_code.co_filename
        return name.startswith(self._root) and "site-packages" not in name
