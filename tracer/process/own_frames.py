"""Frames of the project's own code that run in a thread: who asks, who calls, who makes something."""

import functools
from collections.abc import Iterator
from types import FrameType

from tidalctl.artifacts.project import is_own

_is_own = functools.cache(is_own)  # asked for each frame of each operator


def own_frames(frame: FrameType | None, root: str) -> Iterator[FrameType]:
    """Yield a frame and those that have called it, innermost first, as far as they are of the project in the folder `root`."""
    while frame is not None:
        if _is_own(frame.f_code.co_filename, root):
            yield frame
        frame = frame.f_back
