"""One fresh process at a time, spawned, waited for, and turned into numbers.

The clock is CLOCK_MONOTONIC, which parent and child share. The children write into files and not into pipes, so that the
parent does nothing but wait while they run.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.errors import FunctionError, TidalError
from tidalctl.function.child_process import last_report
from tidalctl.function.context import context_fields

PLAIN = "the plain function"
CLOCK = Path(__file__).with_name("eager_clock.py")
TAIL = 20  # lines of a failed child's stderr that are shown


class PlainFunction(msgspec.Struct, frozen=True, kw_only=True):
    """Where the function lies and how it is called without tidalctl. `argv` are the arguments after the script's name.

    `context` is the JSON text of fields of its context; with `encode`, what it gives is converted to JSON. Of another
    shape than an ordinary handler the shape's module makes one.
    """

    root: str
    cwd: str
    source: str
    module: str
    handler: str
    argv: tuple[str, ...] = ()
    context: str = ""
    encode: bool = False
    shape: str = ""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one process gave. Times are seconds as in `samples.Sample`; `ended_ns` is when it was gone."""

    ttft_s: float
    total_s: float
    exit_s: float
    phases: dict[str, float]
    output: Any
    strategy: str
    ended_ns: int
    own_s: float | None = None
    fallback: str | None = None
    peak_bytes: int | None = None


class _Ended(msgspec.Struct, frozen=True):
    spawned_ns: int
    ended_ns: int
    stdout: bytes
    peak_bytes: int


def run_eager(plain: PlainFunction, event: str) -> Run:
    """The plain function in a plain interpreter. `event` is JSON text or the path of a file that holds it.

    Raises FunctionError where it fails, after showing the end of what it said.
    """
    with tempfile.TemporaryFile() as marks_file:
        fd = marks_file.fileno()
        value = json.loads(event if event.startswith("{") else Path(event).read_bytes())
        context = json.dumps(context_fields(plain.module, value, plain.context))
        place = (plain.root, plain.source, plain.module, plain.handler)
        spec = (str(fd), *place, event, context, "encode" if plain.encode else "", plain.shape)
        ended = _run([sys.executable, str(CLOCK), *spec, *plain.argv], plain.cwd, PLAIN, (fd,))
        marks_file.seek(0)
        written = marks_file.read()
    if not written:
        raise FunctionError(f"{PLAIN} ended the process before its answer was complete", "let the handler return")
    report = json.loads(written)
    marks = _marks(report, PLAIN)
    entered, imported = report["entered_ns"], report["imported_ns"]
    phases = {
        "process start": entered - ended.spawned_ns,
        "imports": imported - entered,
        "compute": marks["done_ns"] - imported,
    }
    return Run(
        **_times(ended, marks),
        phases={name: nanoseconds / 1e9 for name, nanoseconds in phases.items()},
        output=report["output"],
        strategy="plain",
        ended_ns=ended.ended_ns,
    )


def run_bundle(bundle: Path, plain: PlainFunction, event: str, *options: str) -> Run:
    """The same from the bundle, by `tidalctl run` as a user would call it. Raises FunctionError or TidalError."""
    command = [sys.executable, "-P", "-m", "tidalctl", "run", str(bundle), "--event", event, "--json", *options]
    if plain.context:
        command += ["--context", plain.context]
    if plain.argv:
        command += ["--", *plain.argv]
    ended = _run(command, plain.cwd, "the bundle", ())
    report = last_report(ended.stdout, "done_ns")
    if report is None:
        raise FunctionError("the run from the bundle ended the process before its report", "let the handler return")
    marks = _marks(report, "the bundle")
    phases: dict[str, float] = dict(report["phases"])
    # the child knows its start to a tick of 10 ms only; the parent knows it better
    phases["process start"] = phases.get("process start", 0.0) + (report["started_ns"] - ended.spawned_ns) / 1e9
    return Run(
        **_times(ended, marks),
        phases=phases,
        output=report["output"],
        strategy=report["strategy"],
        ended_ns=ended.ended_ns,
        own_s=report["own_s"],
        fallback=report["fallback"],
    )


def _times(ended: _Ended, marks: Mapping[str, int]) -> dict[str, Any]:
    return {
        "ttft_s": (marks["first_token_ns"] - ended.spawned_ns) / 1e9,
        "total_s": (marks["done_ns"] - ended.spawned_ns) / 1e9,
        "exit_s": (ended.ended_ns - marks["done_ns"]) / 1e9,
        "peak_bytes": ended.peak_bytes,
    }


def _marks(report: Mapping[str, Any], who: str) -> dict[str, int]:
    if not report["first_token_ns"]:
        raise FunctionError(
            f"{who} gave no output for this event, so there is no first token to time", "bench an event with one"
        )
    return {name: report[name] for name in ("first_token_ns", "done_ns")}


def _run(command: Sequence[str], cwd: str, who: str, fds: tuple[int, ...]) -> _Ended:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        spawned = time.monotonic_ns()
        process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err, pass_fds=fds)
        try:
            _, status, used = os.wait4(process.pid, 0)
            ended = time.monotonic_ns()
            code = process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:  # Ctrl-C above all: no child outlives its bench
            process.kill()
            process.wait()
            raise
        if code != 0:
            err.seek(0)
            _fail(who, code, err.read().decode(errors="replace"))
        out.seek(0)
        return _Ended(spawned, ended, out.read(), used.ru_maxrss * 1024)


def _fail(who: str, code: int, stderr: str) -> None:
    """Show the end of what the child said and raise. An `error:` and a `hint:` of a tidalctl child become our own."""
    lines = stderr.rstrip().splitlines()
    said = {key: line.partition(": ")[2] for line in lines for key in ("error", "hint") if line.startswith(f"{key}: ")}
    rest = [line for line in lines if not line.startswith(("error: ", "hint: "))][-TAIL:]
    if rest:
        print("\n".join(rest), file=sys.stderr, flush=True)
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = "it may have run out of memory" if -code == signal.SIGKILL else said.get("hint")
        raise FunctionError(f"the run of {who} was ended by {name}", hint)
    cause = said.get("error") or (rest[-1].strip() if rest else f"exit code {code}")
    error = FunctionError if code == 1 else TidalError
    of_itself = "the function itself raises it: give an event that it answers" if who == PLAIN else None
    raise error(f"the run of {who} failed: {cause}", said.get("hint", of_itself))


def event_argument(text: str, folder: Path) -> str:
    """The event as one argument: its text, or a file in `folder` where it is longer than the kernel takes (128 KiB)."""
    if len(os.fsencode(text)) < 100_000:
        return text
    path = folder / "event.json"
    path.write_text(text, encoding="utf-8")
    return str(path)
