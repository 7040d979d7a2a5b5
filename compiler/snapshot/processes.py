"""The fresh processes that compile runs: the snapshot, a second plain run, and the proof from the finished bundle."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.errors import FunctionError
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace.records import Header
from tidalctl.compiler.snapshot.records import CaptureReport, CaptureRequest, SnapshotReport, SnapshotRequest

CHILD = "import sys; from tidalctl.compiler.snapshot.child import main; main(sys.argv[1])"
CAPTURE = "import sys; from tidalctl.compiler.snapshot.capture_child import main; main(sys.argv[1])"

# Whatever depends on the hash seed (the order of a set in the skeleton) must come out alike each time.
STEADY = {"PYTHONHASHSEED": "0"}


def working_directory(header: Header) -> str:
    """Where the function was traced, since its paths may be relative; the project's folder where that is gone."""
    return header.cwd if os.path.isdir(header.cwd) else header.root


def take_snapshot(
    header: Header, request: SnapshotRequest, progress: Callable[[int, int], None] | None = None
) -> SnapshotReport:
    """Run the snapshot's process. Raises FunctionError where the function raises, SystemExit where the child said what was wrong."""
    read_end, write_end = os.pipe()
    try:
        process, path = _start(CHILD, header, msgspec.structs.replace(request, progress=write_end), [write_end])
    finally:
        os.close(write_end)
    with open(read_end, encoding="ascii") as told:
        code = _outcome(process, path, told, progress)
    if code != 0:
        how = f"its process was killed by signal {-code}" if code < 0 else "its traceback is above"
        raise FunctionError(
            f"the function failed when it was run for the snapshot: {how}", "does it still answer the traced events?"
        )
    return msgspec.json.decode(Path(request.report).read_bytes(), type=SnapshotReport)


def take_capture(header: Header, request: CaptureRequest) -> CaptureReport | None:
    """Run the capture's process. None where init did not make what was wanted again."""
    process, path = _start(CAPTURE, header, request, [])
    if _outcome(process, path, (), None) != 0:
        return None
    return msgspec.json.decode(Path(request.report).read_bytes(), type=CaptureReport)


def _start(code: str, header: Header, request: Record, descriptors: list[int]) -> tuple[subprocess.Popen[bytes], Path]:
    handle, path = tempfile.mkstemp(suffix=".json")
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(request))
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, path],
        stdout=2,
        cwd=working_directory(header),
        env={**os.environ, **STEADY},
        pass_fds=descriptors,
    )
    return process, Path(path)


def _outcome(
    process: subprocess.Popen[bytes], path: Path, told: Iterable[str], progress: Callable[[int, int], None] | None
) -> int:
    """The child's exit code, once it has ended. One that has said what was wrong ends this process too, as its own end would."""
    try:
        for line in told:
            done, total = map(int, line.split())
            if progress:
                progress(done, total)
        code = process.wait()
    except BaseException:  # raised again: an interrupt, too, must not leave the child behind
        process.terminate()
        process.wait()
        raise
    finally:
        path.unlink(missing_ok=True)
    if code == 2:
        raise SystemExit(2)
    if code == 130:
        raise KeyboardInterrupt
    return code


def run_from_bundle(bundle: Path, header: Header, event: str, *, state: bool = True) -> dict[str, Any]:
    """Answer an event from a bundle in a fresh process; its report, or `{"failed": …}` with the end of what it said.

    With `state` the report holds the digests of the state's weights besides, as `--state` has them.
    """
    command = [sys.executable, "-P", "-m", "tidalctl", "run", str(bundle), "--event", "-", "--json"]
    if state:
        command.append("--state")
    if header.argv:
        command += ["--", *header.argv]
    done = subprocess.run(command, input=event, capture_output=True, text=True, cwd=working_directory(header), check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return {"failed": (errors or lines)[-1]}
    report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return report


def plain_run(header: Header, events: Sequence[str], folder: Path) -> SnapshotReport:
    """What the plain function builds and answers in one more fresh process; nothing is written."""
    report = folder / "plain.json"
    request = SnapshotRequest(
        function=header.function, root=header.root, argv=header.argv, events=tuple(events), report=str(report)
    )
    return take_snapshot(header, request)
