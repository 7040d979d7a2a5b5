"""The snapshot's process: runs the function plainly, as `python app.py` would, with a Snapshotter in the way of its init."""

from pathlib import Path

import msgspec

from tidalctl.compiler.snapshot.records import SnapshotRequest
from tidalctl.compiler.snapshot.snapshotter import Snapshotter
from tidalctl.function.child_process import end_child, read_request
from tidalctl.function.context import make_context
from tidalctl.function.filled_object import filling_objects
from tidalctl.function.init_mark import answer_inits_with
from tidalctl.function.outputs import answer_of, called, is_stream, json_text, pieces
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
    for index, asked in enumerate(request.events):
        event = msgspec.json.decode(asked.text)
        snapshotter.begin(index, event)
        try:
            result = called(handler, event, make_context(request.function.module, event, asked.context))
            streams = is_stream(result)
            found = [
                answer_of(piece, number if streams else None, encode=request.function.encode)
                for number, piece in enumerate(pieces(result))
            ]
        finally:
            if snapshotter.error is not None:
                raise snapshotter.error
        texts = [json_text(piece, number if streams else None) for number, piece in enumerate(found)]
        outputs.append(f"[{', '.join(texts)}]" if streams else texts[0])
        del result, found
    snapshotter.outputs = tuple(outputs)
    Path(request.report).write_bytes(msgspec.json.encode(snapshotter.report()))
    return 0
