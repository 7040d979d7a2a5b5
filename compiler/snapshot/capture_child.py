"""The capture's process: runs init under lineage and writes what some of its tensors held before later steps wrote over them."""

import json
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.bundle.weights_file import Entry, kept_address, plan_shards, write_shards
from tidalctl.artifacts.errors import CheckFailed
from tidalctl.compiler.side_effects.watches import after_imports
from tidalctl.compiler.snapshot.records import CaptureRequest
from tidalctl.function.child_process import end_child, read_request
from tidalctl.function.context import make_context
from tidalctl.function.filled_object import filling_objects
from tidalctl.function.init_mark import Init, answer_inits_with
from tidalctl.function.outputs import called, pieces
from tidalctl.function.process_settings import FirstGenerators
from tidalctl.function.target import enter_project, import_handler


class _Enough(BaseException):
    """Init has run; nothing of the handler is wanted. No `except Exception` of the function's stops it."""


class Capturer:
    """Answers the first call of init for each event, and keeps what is wanted of it."""

    def __init__(self, request: CaptureRequest) -> None:
        self._request = request
        self.tensors: dict[str, Any] = {}
        self.addresses: dict[str, int] = {}  # where they lay
        self._inside = False

    def answer(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        from tidalctl.lineage.capture import CapturingTape
        from tidalctl.lineage.loaders import LoaderWatch
        from tidalctl.lineage.mode import recording

        if self._inside or mark.name != self._request.init:
            return mark.function(*arguments, **keywords)  # a part of the init that calls it, or another one
        self._inside = True
        wanted = {identity for name, identity in self._request.wanted.items() if name not in self.tensors}
        tape = CapturingTape(wanted, root=self._request.root)
        with LoaderWatch(lambda path: None) as watch, after_imports(watch.imported), recording(tape):
            watch.tape = tape
            mark.function(*arguments, **keywords)
        self._inside = False
        for name, identity in self._request.wanted.items():
            if identity in tape.captured:
                self.tensors.setdefault(name, tape.captured[identity])
                self.addresses.setdefault(name, tape.addresses[identity])
        raise _Enough


def main(path: str) -> None:
    request = read_request(path, CaptureRequest)
    end_child(lambda: _run(request), request.folder)


def _run(request: CaptureRequest) -> int:
    enter_project(Path(request.root), Path(request.root) / request.function.source, request.argv)
    capturer = Capturer(request)
    generators = FirstGenerators()
    answer_inits_with(filling_objects(capturer.answer))
    handler = import_handler(request.function)
    for asked in request.events:
        generators.put_back()
        event = json.loads(asked.text)
        try:
            for _ in pieces(called(handler, event, make_context(request.function.module, event, asked.context))):
                pass
        except _Enough:
            continue
    missing = sorted(request.wanted.keys() - capturer.tensors.keys())
    if missing:
        raise CheckFailed(f"init did not make {missing[0]} again as it was made in the trace")
    _write(request, capturer.tensors, capturer.addresses)
    return 0


def _write(request: CaptureRequest, tensors: dict[str, Any], addresses: dict[str, int]) -> None:
    from tidalctl.artifacts.state.storages import chunks_of

    entries = []
    for name in request.wanted:
        tensor = tensors[name]
        dtype = str(tensor.dtype).removeprefix("torch.")
        kept = kept_address(dtype, addresses.get(name, 0))
        entries.append(Entry(name=name, dtype=dtype, shape=tuple(tensor.shape), nbytes=tensor.nbytes, address=kept))
    shards = plan_shards(entries, request.shard_size, request.stem)
    stored = write_shards(
        Path(request.folder), shards, lambda p: chunks_of(tensors[p.entry.name].untyped_storage()), lambda size: None
    )
    Path(request.report).write_bytes(msgspec.json.encode(stored))
