"""Leaving without the second that torch's libraries take to tear down, and without losing what a normal exit would keep."""

import atexit
import gc
import io
import os
import sys
import threading
from collections.abc import Iterable
from typing import NoReturn

_opened_for_writing = False

_NONE_WRITTEN = frozenset("rbtU")

# What holds bytes that were written and not yet handed to the kernel
_BUFFERED = (io.BufferedWriter, io.BufferedRandom, io.BufferedRWPair, io.TextIOWrapper)


def watch_writes() -> None:
    """Note whether the program opens any file for writing, so that leaving knows whether to look for unflushed ones."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        global _opened_for_writing
        if event == "open" and not _opened_for_writing:
            mode = arguments[1]  # None for os.open, whose writes are not buffered
            if isinstance(mode, str) and not _NONE_WRITTEN.issuperset(mode):
                # tempfile tries out its folder with a file that it closes at once
                _opened_for_writing = sys._getframe(1).f_code.co_name != "_get_default_tempdir"

    sys.addaudithook(hook)


def leave(code: int) -> NoReturn:
    """End the process as the interpreter would: join threads, run exit handlers, flush files. Skips only the teardown.

    What is skipped: `__del__` of objects that are alive at the end, and exit functions of C libraries.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if _opened_for_writing:
        gc.unfreeze()
        kinds = _with_subclasses(_BUFFERED)
        for value in [value for value in gc.get_objects() if type(value) in kinds]:
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


def _with_subclasses(kinds: Iterable[type]) -> set[type]:
    found = set(kinds)
    for kind in kinds:
        found |= _with_subclasses(kind.__subclasses__())
    return found
