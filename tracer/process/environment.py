"""Environment variables that the project's own code reads before the handler has its state, since the state may depend on them.

Reads by libraries are left out: they read hundreds, and what of them matters is the fingerprint's business. The standard library reads
for the project where that calls it (`Path.home()`, a `string.Template`). Values are kept as digests.
"""

import os
import sys
from types import FrameType, TracebackType
from typing import Any

from tidalctl.artifacts.project import is_own
from tidalctl.artifacts.records import digest_json
from tidalctl.tracer.process.clock import TraceClock

_STANDARD = os.path.dirname(os.__file__) + os.sep
_INSTALLED = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)
# Of what these read on their own account (a search path, a folder for temporary files, a proxy, a language) machines differ, and what
# comes of it is seldom in a state; some read all there is.
_OWN_ACCOUNT = tuple(
    _STANDARD + name
    for name in (
        *("asyncio", "ctypes", "distutils", "ensurepip", "gettext.py", "http", "logging", "multiprocessing", "platform.py"),
        *("pydoc.py", "shutil.py", "site.py", "ssl.py", "subprocess.py", "sysconfig", "tempfile.py", "unittest", "urllib"),
        *("uuid.py", "venv", "webbrowser.py", "wsgiref", "xml", "zoneinfo"),
    )
)


class EnvironRecorder:
    """A context in which reads of os.environ are noted: the variable and a digest of [its value], or of [null] where unset."""

    def __init__(self, clock: TraceClock, root: str) -> None:
        self._clock = clock
        self._root = root
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
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and _reads_for_another(frame):
            frame = frame.f_back
        name = frame.f_code.co_filename if frame is not None else ""
        return is_own(name, self._root)


def _reads_for_another(frame: FrameType) -> bool:
    """Whether a frame is of the standard library, in a call: what a module reads while it is imported, it reads for itself."""
    code = frame.f_code
    if code.co_filename.startswith("<frozen "):
        return "importlib" not in code.co_filename
    ours = code.co_filename.startswith(_STANDARD) and not any(part in code.co_filename for part in _INSTALLED)
    return ours and code.co_name != "<module>" and not code.co_filename.startswith(_OWN_ACCOUNT)
