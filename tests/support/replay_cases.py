"""What the tests of replays share: an init traced and compiled in this process to what a template would hold for it, the replays that
are answered from that, and all that can be seen of a state, to compare them with plain runs by."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tidalctl.artifacts.bundle.manifest import Answer, BundleWeight
from tidalctl.artifacts.bundle.weights_file import Entry, plan_shards, write_shard
from tidalctl.artifacts.state.storages import chunks_of, storage_of, tensors_of
from tidalctl.compiler.dynamic.answers import plan_answers, sources_of
from tidalctl.compiler.dynamic.recorded_init import EventInit
from tidalctl.function.init_mark import Init
from tidalctl.lineage.capture import CapturingTape
from tidalctl.lineage.loaders import LoaderWatch
from tidalctl.lineage.mode import recording
from tidalctl.lineage.tape import Tape
from tidalctl.runtime.replay import EntryMemory, Replay
from tidalctl.runtime.weights.file_mapping import PrivateMapping
from tidalctl.tracer.init.call import record_init

Load = Callable[[dict[str, Any]], Any]
EVENTS = ({"scale": 2.0}, {"scale": 3.0})
OTHER = {"scale": 5.0}
MODEL = "model.safetensors"


@dataclass
class Traced:
    """What a trace and a compile of one init know: what a template would hold for it."""

    load: Load
    root: Path
    answers: tuple[Answer, ...]
    memory: EntryMemory
    sources: dict[str, list[int]]
    replays: list[Replay] = field(default_factory=list)

    def run(self, event: dict[str, Any] = OTHER) -> Any:
        self.replays.append(Replay(self.answers, self.sources, str(self.root), self.memory))
        return self.last.run(self.load, (dict(event),), {})

    @property
    def last(self) -> Replay:
        return self.replays[-1]

    @property
    def stored(self) -> list[str]:
        return [answer.weight for answer in self.answers]

    def matches(self, event: dict[str, Any] = OTHER) -> "Traced":
        """The replayed state is the plain one."""
        assert shown(self.run(event)) == shown(self.load(dict(event)))
        return self


def trace(load: Load, root: Path, *events: dict[str, Any]) -> Traced:
    inits = []
    for index, event in enumerate(events or EVENTS):
        tape = Tape(index, str(root))
        with LoaderWatch(lambda file: None) as watch:
            watch.tape = tape
            made = record_init(Init(load, False), (event,), {}, event, tape)
        weights = tuple(weight for weight, _ in made.weights(0))
        inits.append(EventInit(event=event, call=made.call, weights=weights, records=tuple(tape.records), opened=()))
    planned = plan_answers(inits, str(root), os.getcwd())
    sources = {file: list(known) for file, known in sources_of(planned, str(root)).items()}
    contents: dict[str, torch.Tensor] = {}
    for event in events or EVENTS:
        capture = CapturingTape({one.identity for one in planned}, root=str(root))
        with LoaderWatch(lambda file: None) as watch, recording(capture):
            watch.tape = capture
            load(event)
        contents |= capture.captured
    answers = tuple(one.answer for one in planned)
    return Traced(load, root, answers, written({one.answer.weight: contents[one.identity] for one in planned}, root), sources)


def written(tensors: dict[str, torch.Tensor], root: Path) -> EntryMemory:
    """The tensors in a weights file, as a bundle holds them."""
    entries = [Entry(name=n, dtype=str(t.dtype)[6:], shape=tuple(t.shape), nbytes=t.nbytes) for n, t in tensors.items()]
    weights = []
    for shard in plan_shards(entries, None, "template"):
        digests = write_shard(root, shard, lambda p: chunks_of(tensors[p.entry.name].untyped_storage()), lambda size: None)
        for placed in shard.placements:
            weights.append(
                BundleWeight(
                    name=placed.entry.name,
                    dtype=placed.entry.dtype,
                    shape=placed.entry.shape,
                    nbytes=placed.entry.nbytes,
                    device="cpu",
                    file=placed.file,
                    offset=placed.offset,
                    sha256=digests.sha256[placed.entry.name],
                    xxh3=digests.xxh3[placed.entry.name],
                )
            )
    return EntryMemory(weights, lambda file: PrivateMapping(root / file))


def shown(state: Any) -> list[Any]:
    """All that can be seen of a state's tensors: bytes, geometry, flags, and which of them share memory."""
    spans: list[tuple[int, int]] = []
    found = []
    for path, tensor in tensors_of(state):
        storage = storage_of(tensor)
        assert storage is not None
        span = (storage.data_ptr(), storage.nbytes()) if storage.nbytes() else (-len(spans), 0)
        spans = spans if span in spans else [*spans, span]
        flags = tensor.requires_grad, tensor.is_inference(), type(tensor).__name__, tensor.is_leaf
        version = None if tensor.is_inference() else tensor._version
        data = b"".join(bytes(chunk) for chunk in chunks_of(storage))
        geometry = str(tensor.dtype), tuple(tensor.shape), tuple(tensor.stride()), tensor.storage_offset(), storage.nbytes()
        found.append((path, geometry, flags, version, data, spans.index(span)))
    return found


def spoil(path: Path, skip: int | None = None) -> None:
    """Write over a file's data in place; its size and time stay."""
    status = path.stat()
    with open(path, "r+b") as file:
        start = 8 + int.from_bytes(file.read(8), "little") if skip is None else skip
        file.seek(start)
        file.write(b"\x3f" * (status.st_size - start))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def write_model(folder: Path) -> Path:
    """A file of three matrices and some numbers."""
    generator = torch.Generator().manual_seed(0)
    names = ("first.weight", "second.weight", "third.weight")
    tensors = {name: torch.randn(16, 16, generator=generator) for name in names}
    save_file({**tensors, "numbers": torch.arange(6)}, folder / MODEL)
    return folder / MODEL
