"""The snapshot's process: runs the function plainly, as `python app.py` would, with a Snapshotter in the way of its init."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from tidalctl.artifacts.errors import TidalError
from tidalctl.compiler.snapshot import SnapshotReport, SnapshotRequest
from tidalctl.compiler.snapshotter import Snapshotter
from tidalctl.context import answer_inits_with
from tidalctl.function import enter_project, import_handler, is_stream, json_text, pieces


def main(path: str) -> None:
    request = msgspec.json.decode(Path(path).read_bytes(), type=SnapshotRequest)
    os.unlink(path)
    leave(lambda: _run(request), request.folder)


def leave(work: Callable[[], None], folder: str) -> None:
    """Do the work of a child, say what went wrong, and end the process without torch's teardown."""
    code = 0
    try:
        work()
    except TidalError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except Exception as error:  # noqa: BLE001 - the user's function may raise anything
        if isinstance(error, OSError) and (error.filename is not None or error.errno is not None):
            print(f"error: {error.strerror}: {error.filename or folder}", file=sys.stderr)
            code = 2
        else:
            from tidalctl.raised import show_traceback

            show_traceback(error)
            code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(request: SnapshotRequest) -> None:
    enter_project(Path(request.root), Path(request.root) / request.function.source, request.argv)
    snapshotter = Snapshotter(request)
    answer_inits_with(snapshotter.answer)  # before the import, which may call init itself
    handler = import_handler(request.function)
    snapshotter.imported()
    outputs = []
    for index, text in enumerate(request.events):
        snapshotter.begin(index)
        try:
            result = handler(msgspec.json.decode(text), None)
            value = list(pieces(result)) if is_stream(result) else result
        finally:
            if snapshotter.error is not None:
                raise snapshotter.error
        outputs.append(json_text(value))
        del result, value
    snapshotter.report["outputs"] = tuple(outputs)
    report = SnapshotReport(**snapshotter.report)
    Path(request.report).write_bytes(msgspec.json.encode(report))
