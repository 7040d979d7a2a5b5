"""The snapshot's process: runs the function plainly, as `python app.py` would, with a Snapshotter in the way of its init."""

from pathlib import Path

import msgspec

from tidalctl.compiler.snapshot.records import SnapshotReport, SnapshotRequest
from tidalctl.compiler.snapshot.snapshotter import Snapshotter
from tidalctl.function.child_process import end_child, read_request
from tidalctl.function.filled_object import filling_objects
from tidalctl.function.init_mark import answer_inits_with
from tidalctl.function.outputs import is_stream, json_text, pieces
from tidalctl.function.target import enter_project, import_handler


def main(path: str) -> None:
    request = read_request(path, SnapshotRequest)
    end_child(lambda: _run(request), request.folder)


def _run(request: SnapshotRequest) -> int:
    enter_project(Path(request.root), Path(request.root) / request.function.source, request.argv)
    snapshotter = Snapshotter(request)
    answer_inits_with(filling_objects(snapshotter.answer))  # before the import, which may call init itself
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
    return 0
