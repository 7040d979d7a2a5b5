"""A bundle's function as a callable, and the outputs of a function as they leave it."""

import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidalctl.function.outputs import is_async, is_stream
from tidalctl.function.target import Handler
from tidalctl.runtime.options import Io, Require, Verify
from tidalctl.runtime.process.frame_stack import with_frame_stack
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.template import Template
from tidalctl.runtime.weights.weight_stream import StreamOptions

if TYPE_CHECKING:
    from tidalctl.runtime.first_start import FirstStart, Start


class BundleFunction:
    """The function in a bundle. Call it with an event, and it gives what the handler gives: a value, or a generator.

    Where the handler is async that is a coroutine, or an async generator, for the caller's event loop.

    The handler gets `context` as it is given here. Nothing is converted, whatever `--encode` said.
    """

    def __init__(self, template: Template, first_start: "FirstStart") -> None:
        self.template = template
        self._first_start = first_start
        self._handler: Handler | None = None

    @property
    def start(self) -> "Start | None":
        """How the first start went; None until it is over."""
        return self._first_start.record

    def __call__(self, event: Any, context: Any = None) -> Any:
        template = self.template
        try:
            if self._handler is None:
                self._handler = with_frame_stack(lambda: template.prepare(event, argv=None))
                template.collector.freeze_now()  # before there is a state, which is to go
            else:
                template.timeline.close()
            template.begin(event)
            self._first_start.begun()
            result = template.weights.call(self._handler, event, context)
        except BaseException:  # raised again: no output will end the start
            template.over()
            raise
        if is_async(result):
            from tidalctl.runtime.async_outputs import guarded_async

            return _dropped_or_read(guarded_async(result, template, self._first_start.begun), template)
        if is_stream(result):
            return _dropped_or_read(guarded(result, template, self._first_start.begun), template)
        template.let_out()
        return result


def load_bundle(
    path: str | Path,
    *,
    verify: str = "stream",
    io: str = "auto",
    require: str | None = None,
    on_start: "Callable[[Start], object] | None" = None,
) -> BundleFunction:
    """Return the function in a bundle, a callable `function(event, context=None)`.

    `verify`, `io` and `require` are as `tidalctl run` takes them; `on_start` is called once, with the record of the first start.
    Imports the function into this process at the first call; what `tidalctl run` falls back for, this falls back for too, and says so
    in the log. Raises TidalError where the bundle can't be used (StateNotUsed where init would run in spite of `require`), ValueError
    for an option that is none. One bundle a process: its modules and settings are the process's.
    """
    from tidalctl.runtime.first_start import FirstStart

    for name, given, known in (("verify", verify, Verify), ("io", io, Io), ("require", require, Require)):
        if given not in list(known) and not (name == "require" and given is None):
            raise ValueError(f"{name}={given!r} is not one of {', '.join(known)}")
    now = time.monotonic_ns()
    template = Template(Path(path), Timeline(now, now), StreamOptions(verify=verify, io=io), require=require)
    if require is not None:
        try:
            template.refuse_process(None)
        except BaseException:  # raised again: no call will end the start
            template.over()
            raise
    return BundleFunction(template, FirstStart(template, on_start))


def _dropped_or_read(stream: Any, template: Template) -> Any:
    """Return the stream, or the coroutine. The start is over even where it is dropped before it has begun, and has no end of its own.

    A call of its own, since an exception that an import keeps holds what its callers' frames hold.
    """
    weakref.finalize(stream, template.over).atexit = False
    return stream


def guarded(stream: Iterator[Any], template: Template, begun: Callable[[], None] = lambda: None) -> Iterator[Any]:
    """Pieces of output, none of which leaves before the weights and the code that it came from are known to be right.

    `begun` is called when the first piece is asked for.
    """
    end = object()
    begun()
    try:
        while (piece := template.weights.call(next, stream, end)) is not end:
            template.let_out()
            yield piece
        template.requirement.refuse_unmet()  # the function may have caught it
    finally:
        template.over()
