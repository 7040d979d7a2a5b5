"""`trace`: run the function once in a fresh process and leave its execution path in a file."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tidalctl.artifacts.errors import FunctionError, TidalError
from tidalctl.artifacts.places import refuse_existing, try_to_write
from tidalctl.artifacts.trace import Failure, Trace, read_trace
from tidalctl.function import locate
from tidalctl.tracer.child import Request

GRACE_S = 5.0  # that an interrupted function has, to end by itself
CHILD = "import sys; from tidalctl.tracer.child import main; main(sys.argv[1])"


def record_trace(
    target: str,
    events: Sequence[str],
    output: Path,
    *,
    init: str = "",
    static: bool = False,
    vary: Sequence[str] = (),
    argv: Sequence[str] = (),
    tensorboard: Path | None = None,
    force: bool = False,
) -> Trace:
    """Trace `target` on `events` (JSON texts) into `output`, and return what was recorded.

    While it grows the trace is `<output>.partial`; it stays under that name, incomplete, where the function raises or is killed.
    Raises TidalError (2) for a wrong target or an output that exists, FunctionError (1) where the function raised.
    """
    refuse_existing(output, force, "trace")
    if not output.absolute().parent.is_dir():
        raise TidalError(f"{output.parent} is not a directory", "make it first, or name another with -o")
    partial = output.with_name(output.name + ".partial")
    refuse_existing(partial, True, "trace")  # what an earlier one left there may go
    function, root = locate(target, init, static)
    try_to_write(partial, str(output))
    request = Request(
        function=function,
        root=str(root),
        argv=tuple(argv),
        events=tuple(events),
        partial=str(partial.absolute()),
        vary=tuple(vary),
        tensorboard=str(tensorboard.absolute()) if tensorboard else "",
    )
    handle, path = tempfile.mkstemp(suffix=".json")
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(request))
    try:
        code = run_child([sys.executable, "-P", "-c", CHILD, path])
    except KeyboardInterrupt:
        code = 130
    Path(path).unlink(missing_ok=True)
    if code in (2, 130):
        partial.unlink(missing_ok=True)
        if code == 130:
            raise KeyboardInterrupt
        raise SystemExit(2)  # the child has said what was wrong
    if code != 0:
        kept = f"what it did until then: tidalctl inspect {partial}" if partial.exists() else None
        if code < 0:
            raise FunctionError(f"the function's process was killed by signal {-code}", kept)
        raise _failed(partial, kept)
    trace = read_trace(partial)
    os.replace(partial, output)
    return trace


def _failed(partial: Path, kept: str | None) -> FunctionError:
    """What the trace says of why it ended."""
    failure = read_trace(partial).one(Failure) if kept else None
    if failure is None:
        return FunctionError("the function raised, so the trace is incomplete", kept)
    if failure.hint:
        return FunctionError(failure.message, failure.hint)
    return FunctionError(f"the function raised {failure.message.splitlines()[-1]}, so the trace is incomplete", kept)


def run_child(command: list[str]) -> int:
    """Run a process whose standard output is talk, as its errors are. An interrupt reaches it too, and it is given a while to end."""
    sys.stderr.flush()
    process = subprocess.Popen(command, stdout=2, env={"KINETO_LOG_LEVEL": "99", **os.environ, "PYTHONHASHSEED": "0"})
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
        finally:  # the function may have caught it, Python may have dropped it in a callback, and a second one ends the grace
            process.kill()
            process.wait()
        raise
