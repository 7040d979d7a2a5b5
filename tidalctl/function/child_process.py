"""Fresh processes that run the user's function: the request, the exit code, interrupts, and the report of `tidalctl run --json`.

A request is a JSON file, whose path is the child's only argument. Exit codes: 0 done, 1 the function failed, 2 the child has said what
was wrong, 130 interrupted.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tidalctl.artifacts.errors import TidalError, print_error
from tidalctl.artifacts.records import Record

GRACE_S = 5.0  # that an interrupted function has, to end by itself
RequestKind = TypeVar("RequestKind", bound=Record)


def run_child(
    module: str,
    request: Record,
    *,
    directory: str | None = None,
    descriptors: tuple[int, ...] = (),
    meanwhile: Callable[[], None] = lambda: None,
) -> int:
    """Run a module's `main` on a request, in a fresh process whose standard output is talk, as its errors are.

    The child inherits `descriptors`; `meanwhile` is called as soon as it runs. Return its exit code, or the negative number of the
    signal that killed it. Raise SystemExit(2) where it has said what was wrong, KeyboardInterrupt where it was interrupted.
    """
    sys.stderr.flush()
    handle, path = tempfile.mkstemp(suffix=".json")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(request))
        command = [sys.executable, "-P", "-c", f"import sys; from {module} import main; main(sys.argv[1])", path]
        # a set's order in a file must come out alike each time, and torch's profiler has nothing to say
        environment = {"KINETO_LOG_LEVEL": "99", **os.environ, "PYTHONHASHSEED": "0"}
        process = subprocess.Popen(command, stdout=2, cwd=directory, env=environment, pass_fds=descriptors)
        try:
            meanwhile()
            code = process.wait()
        except KeyboardInterrupt:  # which reaches the child, too
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
            raise
        finally:  # the function may have caught it, Python may have dropped it in a callback, and a second one ends the grace
            process.kill()
            process.wait()
    finally:
        Path(path).unlink(missing_ok=True)
    if code == 2:
        raise SystemExit(2)
    if code == 130:
        raise KeyboardInterrupt
    return code


def read_request(path: str, kind: type[RequestKind]) -> RequestKind:
    """Return the request of this child, whose file is removed."""
    request = msgspec.json.decode(Path(path).read_bytes(), type=kind)
    os.unlink(path)
    return request


def answer_from_bundle(
    bundle: Path, event: str, *options: str, directory: str | None = None, command: Sequence[str] = ()
) -> dict[str, Any]:
    """Answer an event by `tidalctl run --json` in a fresh process. Return its report, or its `exit_code` and what `failed`.

    `command` is another way to run tidalctl than `python -m tidalctl`.
    """
    command = [*(command or (sys.executable, "-P", "-m", "tidalctl")), "run", str(bundle), "--event", "-", "--json", *options]
    done = subprocess.run(command, input=event.encode(), capture_output=True, cwd=directory, check=False)
    report = last_report(done.stdout, "output")
    if done.returncode == 0 and report is not None:
        return report
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()] or ["it printed no report"]
    errors = [line for line in lines if line.startswith("error: ")]
    return {"exit_code": done.returncode, "failed": (errors or lines)[-1]}


def last_report(output: bytes, field: str) -> dict[str, Any] | None:
    """Return the last JSON report with this field: the function may print before it on its line, and exit handlers after it."""
    for line in reversed(output.decode(errors="replace").split("\n")):
        for begin in re.finditer(re.escape('{"schema": '), line):
            with contextlib.suppress(ValueError, RecursionError):
                found: dict[str, Any] = json.loads(line[begin.start() :])
                if field in found:
                    return found
    return None


def end_child(work: Callable[[], int], output: str) -> None:
    """Do the work, say what went wrong, and end this child without torch's teardown. `work` returns the exit code.

    An error of the operating system that names no file is one of writing to `output`.
    """
    try:
        code = work()
    except TidalError as error:
        print_error(error)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except Exception as error:  # noqa: BLE001 - the user's function may raise anything
        if isinstance(error, OSError) and (error.filename is not None or error.errno is not None):
            print(f"error: {error.strerror}: {error.filename or output}", file=sys.stderr)
            code = 2
        else:
            from tidalctl.function.tracebacks import show_traceback

            show_traceback(error)
            code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
