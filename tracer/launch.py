"""`trace`: run the function once in a fresh process and leave its execution path in a file."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tidalctl.artifacts.bundle.directory import clear_stale_partials
from tidalctl.artifacts.bundle.output_paths import refuse_existing, try_to_write
from tidalctl.artifacts.errors import FunctionError, TidalError
from tidalctl.artifacts.trace.events import events_path, write_events
from tidalctl.artifacts.trace.file import Trace, read_trace
from tidalctl.artifacts.trace.records import Failure, WeightsBuilt
from tidalctl.function.child_process import run_child
from tidalctl.function.target import locate
from tidalctl.tracer.request import Request


def record_trace(
    target: str,
    events: Sequence[str],
    output: Path,
    *,
    inits: Sequence[str] = (),
    shape: str = "",
    static: bool = False,
    vary: Sequence[str] = (),
    argv: Sequence[str] = (),
    tensorboard: Path | None = None,
    force: bool = False,
    context: str = "",
    encode: bool = False,
    once: bool = False,
    on_init_found: Callable[[WeightsBuilt], None] = lambda built: None,
) -> Trace:
    """Trace `target` on `events` (JSON texts) into `output`, and return what was recorded.

    `context` is the JSON text of fields of the context. With `encode`, outputs are converted to JSON; with `once`, the handler is
    called once for each event. Where `inits` are "auto", it is what a first run shows to make the weights; where none is named or
    marked and weights are made while modules are imported, they are the statements that make them. `on_init_found` is told of each.
    While it grows the trace is `<output>.partial`; it stays under that name, incomplete, where the function raises or is killed.
    The events go to `NAME.events` beside it, once the trace is whole.
    Raises TidalError (2) for a wrong target or an output that exists, FunctionError (1) where the function raised.
    """
    beside = events_path(output)
    refuse_existing(output, force, "trace")
    refuse_existing(beside, force, "list of events")
    if not output.absolute().parent.is_dir():
        raise TidalError(f"{output.parent} is not a directory", "make it first, or name another with -o")
    partial = output.with_name(output.name + ".partial")
    refuse_existing(partial, True, "trace")  # what an earlier one left there may go
    auto = "auto" in inits
    if auto and len(inits) > 1:
        raise TidalError("--init auto stands alone", "name all of them, or let auto find them")
    function, root = locate(target, () if auto else inits, static and not auto, shape)
    function = msgspec.structs.replace(function, encode=encode)
    try_to_write(partial, str(output))
    clear_stale_partials(beside)
    request = Request(
        function=function,
        root=str(root),
        argv=tuple(argv),
        events=tuple(events),
        partial=str(partial.absolute()),
        context=context,
        once=once,
        vary=tuple(vary),
        tensorboard=str(tensorboard.absolute()) if tensorboard else "",
        discover=auto,
    )
    try:
        code = run_child("tidalctl.tracer.child", request)
        if code == 0 and not (trace := read_trace(partial)).complete:
            found = trace.of(WeightsBuilt)
            request = _with_inits(request, found, static)
            for built in found:
                on_init_found(built)
            code = run_child("tidalctl.tracer.child", request)
    except (KeyboardInterrupt, SystemExit):
        partial.unlink(missing_ok=True)
        raise
    if code != 0:
        kept = f"what it did until then: tidalctl inspect {partial}" if partial.exists() else None
        if code < 0:
            raise FunctionError(f"the function's process was killed by signal {-code}", kept)
        raise _failed(partial, kept)
    trace = read_trace(partial)
    try:
        write_events(beside, events, context)
        os.replace(partial, output)
    except BaseException:  # raised again: an interrupt, too, must not leave them
        if not output.exists():  # events of no trace are of no use, and nobody's to read
            beside.unlink(missing_ok=True)
        raise
    return trace


def _with_inits(request: Request, found: Sequence[WeightsBuilt], static: bool) -> Request:
    """Return the request with the inits that a first run has found. Raises TidalError where it found none and was asked to."""
    function = request.function
    if not all(built.name for built in found) or not found:
        handler = f"{function.module}:{function.handler}"
        if not found:
            raise TidalError(
                f"--init auto: {handler} makes no weights of 1 MiB or more, which is what it looks for",
                "name what makes the state: a function, --init app:load, or lines at the top of a file, --init app:7-8",
            )
        raise TidalError(
            f"--init auto: {handler} itself makes the weights, so that there is no function to name",
            "put what makes the state into a function of its own, and name that",
        )
    names, at_import = tuple(built.name for built in found), all(built.at_import for built in found)
    function = msgspec.structs.replace(function, inits=names, static=static or at_import)
    return msgspec.structs.replace(request, function=function, discover=False)


def _failed(partial: Path, kept: str | None) -> FunctionError:
    """What the trace says of why it ended."""
    failure = read_trace(partial).one(Failure) if kept else None
    if failure is None:
        return FunctionError("the function raised, so the trace is incomplete", kept)
    if failure.hint:
        return FunctionError(failure.message, failure.hint)
    return FunctionError(f"the function raised {failure.message.splitlines()[-1]}, so the trace is incomplete", kept)
