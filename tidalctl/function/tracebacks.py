"""What a user's function raised, shown as Python would have shown it: without tidalctl's frames on the way to the user's."""

import traceback
from types import TracebackType


def show_traceback(error: BaseException) -> None:
    """Print an error's traceback without our frames, but those below the last of the user's, where it is ours that raised.

    The tracebacks of the error, and of those that it hangs on, are replaced, so that this is the last thing to do with it.
    """
    shown: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        link = chain.pop()
        if link is not None and id(link) not in shown:
            shown.add(id(link))
            kept, ours = _parted(link.__traceback__)
            # a syntax error lies where it says itself, in none of the frames
            link.__traceback__ = _chained(kept if isinstance(link, SyntaxError) else kept + ours)
            chain += [link.__cause__, link.__context__]
    traceback.print_exception(error)


def _parted(frames: TracebackType | None) -> tuple[list[TracebackType], list[TracebackType]]:
    """A traceback's frames to the last of the user's, without ours between them; and ours below it."""
    kept: list[TracebackType] = []
    ours: list[TracebackType] = []
    while frames is not None:
        package = str(frames.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        # importlib stands between us and the user's module
        if package == "tidalctl" or (package == "importlib" and (ours or not kept)):
            ours.append(frames)
        else:
            kept.append(frames)
            ours.clear()
        frames = frames.tb_next
    return kept, ours


def _chained(frames: list[TracebackType]) -> TracebackType | None:
    rest: TracebackType | None = None
    for frame in reversed(frames):
        rest = TracebackType(rest, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return rest
