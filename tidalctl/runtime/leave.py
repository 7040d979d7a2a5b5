"""Leaving without the second that torch's libraries take to tear down, and without losing what a normal exit would keep."""

import atexit
import gc
import io
import os
import sys
import threading

_opened_for_writing = False


def watch_writes() -> None:
    """Note whether the program opens any file for writing, so that leaving knows whether to look for unflushed ones."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        global _opened_for_writing
        if event == "open" and not _opened_for_writing:
            flags = arguments[2]
            _opened_for_writing = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR) != 0

    sys.addaudithook(hook)


def leave(code: int) -> None:
    """End the process as the interpreter would: join threads, run exit handlers, flush files. Skips only the teardown.

    What is skipped: `__del__` of objects that are alive at the end, and exit functions of C libraries.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if _opened_for_writing:
        gc.unfreeze()
        for value in gc.get_objects():
            if issubclass(type(value), io.IOBase) and not isinstance(value, io.RawIOBase):
                _flush(value)
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    os._exit(code)


def _flush(stream: object) -> None:
    try:
        if stream is not None and not stream.closed:  # type: ignore[attr-defined]
            stream.flush()  # type: ignore[attr-defined]
    except (OSError, ValueError):  # a reader that is gone, or a stream that only looks open
        return
