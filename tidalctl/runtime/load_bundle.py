"""A bundle's function as a callable, and the outputs of a function as they leave it."""

import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tidalctl.function.outputs import is_stream
from tidalctl.function.target import Handler
from tidalctl.runtime.options import Io, Verify
from tidalctl.runtime.process.frame_stack import with_frame_stack
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.template import Template
from tidalctl.runtime.weights.weight_stream import StreamOptions


def load_bundle(path: str | Path, *, verify: str = "stream", io: str = "auto") -> Callable[[Any], Any]:
    """The function in a bundle, as a callable `function(event)` that gives what its handler gives: a value, or a generator.

    `verify` and `io` are as `tidalctl run` takes them. Imports the function into this process at the first call; what `tidalctl run`
    falls back for, this falls back for too. Raises TidalError where the bundle can't be used, ValueError for an option that is none.
    One bundle a process: its modules and settings are the process's.
    """
    for name, given, known in (("verify", verify, Verify), ("io", io, Io)):
        if given not in list(known):
            raise ValueError(f"{name}={given!r} is not one of {', '.join(known)}")
    now = time.monotonic_ns()
    template = Template(Path(path), Timeline(now, now), StreamOptions(verify=verify, io=io))
    handler: Handler | None = None

    def function(event: Any) -> Any:
        nonlocal handler
        try:
            if handler is None:
                handler = with_frame_stack(lambda: template.prepare(event, argv=None))
                template.collector.freeze_now()  # before there is a state, which is to go
            else:
                template.timeline.close()
            template.begin(event)
            result = template.weights.call(handler, event, None)
        except BaseException:  # raised again: no output will end the start
            template.over()
            raise
        if is_stream(result):
            return _dropped_or_read(guarded(result, template), template)
        template.wait()
        template.imports.pack.drop()
        return result

    function.template = template  # type: ignore[attr-defined]
    return function


def _dropped_or_read(stream: Iterator[Any], template: Template) -> Iterator[Any]:
    """The stream, whose start is over even where it is dropped before it has begun: a generator then has no end of its own.

    A call of its own, since an exception that an import keeps holds what its callers' frames hold.
    """
    weakref.finalize(stream, template.over).atexit = False
    return stream


def guarded(stream: Iterator[Any], template: Template) -> Iterator[Any]:
    """Pieces of output, none of which leaves before the weights and the code that it came from are known to be right."""
    end = object()
    try:
        while (piece := template.weights.call(next, stream, end)) is not end:
            template.wait()
            template.imports.pack.drop()
            yield piece
    finally:
        template.over()
