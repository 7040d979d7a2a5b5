"""The fresh processes that compile runs: the snapshot, a second plain run, and the proof from the finished bundle."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.bundle.weights_file import StoredWeights
from tidalctl.artifacts.errors import FunctionError
from tidalctl.artifacts.trace.records import Event, Header
from tidalctl.compiler.snapshot.records import CaptureRequest, SnapshotReport, SnapshotRequest, StateRequest
from tidalctl.function.child_process import answer_from_bundle, run_child


def working_directory(header: Header) -> str:
    """Where the function was traced, since its paths may be relative; the project's folder where that is gone."""
    return header.cwd if os.path.isdir(header.cwd) else header.root


def take_snapshot(
    header: Header, request: SnapshotRequest, progress: Callable[[int, int], None] | None = None
) -> SnapshotReport:
    """Run the snapshot's process. Raises FunctionError where the function raises, SystemExit where the child said what was wrong."""
    read_end, write_end = os.pipe()

    def follow() -> None:
        os.close(write_end)
        for line in told:
            done, total = map(int, line.split())
            if progress:
                progress(done, total)

    with open(read_end, encoding="ascii") as told:
        code = run_child(
            "tidalctl.compiler.snapshot.child",
            msgspec.structs.replace(request, progress=write_end),
            directory=working_directory(header),
            descriptors=(write_end,),
            meanwhile=follow,
        )
    if code != 0:
        how = f"its process was killed by signal {-code}" if code < 0 else "its traceback is above"
        raise FunctionError(
            f"the function failed when it was run for the snapshot: {how}", "does it still answer the traced events?"
        )
    return msgspec.json.decode(Path(request.report).read_bytes(), type=SnapshotReport)


def take_capture(header: Header, request: CaptureRequest) -> StoredWeights | None:
    """Run the capture's process. None where init did not make what was wanted again."""
    if run_child("tidalctl.compiler.snapshot.capture_child", request, directory=working_directory(header)) != 0:
        return None
    return msgspec.json.decode(Path(request.report).read_bytes(), type=StoredWeights)


def run_from_bundle(
    bundle: Path, header: Header, event: Event, *further: str, state: bool = True, command: Sequence[str] = ()
) -> dict[str, Any]:
    """Answer an event from a bundle in a fresh process; its report, or `{"failed": …}` with the end of what it said.

    `further` are options of `run`. With `state` the report holds the digests of the state's weights besides, as `--state` has them.
    `command` is another way to run tidalctl.
    """
    context = ("--context", event.context) if event.context else ()
    options = (*further, *["--state"] * state, *context, *(("--", *header.argv) if header.argv else ()))
    return answer_from_bundle(bundle, event.text, *options, directory=working_directory(header), command=command)


def plain_run(
    header: Header, events: Sequence[Event], folder: Path, states: tuple[StateRequest, ...], outline: str = ""
) -> SnapshotReport:
    """What the plain function builds and answers in one more fresh process; nothing is written but `outline`, a file in `folder`."""
    report = folder / "plain.json"
    request = SnapshotRequest(
        function=header.function,
        root=header.root,
        argv=header.argv,
        events=tuple(events),
        report=str(report),
        states=states,
        outline=str(folder / outline) if outline else "",
    )
    return take_snapshot(header, request)


def first_outline_difference(folder: Path, one: str, other: str) -> str | None:
    """Return the path to the first object in which two outlines differ, or None, also where a run has left none."""
    if not all((folder / name).is_file() for name in (one, other)):
        return None
    ones, others = (msgspec.json.decode((folder / name).read_bytes(), type=list[tuple[str, str]]) for name in (one, other))
    return next((mine[0] for mine, theirs in zip(ones, others, strict=False) if mine != theirs), None)
