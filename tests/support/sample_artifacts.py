"""One sample of every kind of record and a whole bundle, the ways of damaging them, and what reading the damage comes to."""

import hashlib
import json
import platform
import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tidalctl.artifacts.bundle import MANIFEST
from tidalctl.artifacts.bundle.manifest import (
    PROVENANCE,
    SCHEMA,
    BundleFile,
    BundleWeight,
    Fallback,
    Guard,
    Manifest,
    encode_manifest,
    seal,
)
from tidalctl.artifacts.bundle.weights_file import Entry, Placement, plan_shards, write_shard
from tidalctl.artifacts.errors import ArtifactError
from tidalctl.artifacts.records import Fingerprint, Function, KernelSignature, digest_json
from tidalctl.artifacts.trace import file as trace_file
from tidalctl.artifacts.trace import records as tr

FUNCTION = Function(module="app", handler="handler", source="app.py", inits=("app:load",))
EVENT = {"prompt": "héllo", "max_new_tokens": 4}
MUTATIONS = 800  # of each of the three kinds of file, beside hypothesis's own

# hypothesis brings the values that break parsers; no database, so that every run on every machine makes the same ones
fixed = settings(
    max_examples=300,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def fingerprint(**changed: Any) -> Fingerprint:
    """The environment of this process, as far as a bundle without tensors needs it."""
    made = Fingerprint(
        python=platform.python_version(),
        implementation=sys.implementation.name,
        machine=platform.machine(),
        system=platform.system(),
        torch="2.13.0+cpu",
        cuda="",
        device="cpu",
        cpu_capability="AVX2",
        distributions={},
    )
    return msgspec.structs.replace(made, **changed)


def sample_records() -> list[tr.AnyRecord]:
    """One trace that holds every kind of record: two weights used in the order opposite to their indices, one never."""
    kernel = KernelSignature(
        operator="aten.linear", operands=('["bf16",[1,8]]', "null"), count=12, time_s=0.25, kernels=("gemm",)
    )

    def weight(index: int, *names: str) -> tr.Weight:
        source = tr.Source(file="/models/model.safetensors", key=names[0])
        return tr.Weight(
            index=index,
            names=names,
            dtype="bfloat16",
            shape=(4, 8),
            nbytes=64,
            device="cpu",
            digest="ab" * 32,
            sources=(source,),
            operators=("aten.to",),
        )

    return [
        tr.Header(
            schema=tr.SCHEMA,
            tidalctl="0.1.0",
            function=FUNCTION,
            root="/home/someone/project",
            cwd="/home/someone",
            argv=("--fast",),
            events=(tr.Event(digest=digest_json(EVENT)),),
            vary=("prompt",),
        ),
        tr.Import(name="os", file="", self_s=0.001, total_s=0.001, phase="import"),
        tr.Import(name="heavy", file="/lib/heavy/__init__.py", self_s=1.5, total_s=2.5, phase="import"),
        tr.Import(name="heavy.core", file="/lib/heavy/core.py", self_s=1.0, total_s=1.0, phase="import"),
        tr.Import(name="heavy.late", file="/lib/heavy/late.py", self_s=0.125, total_s=0.125, phase="handler"),
        tr.FileOpened(
            path="/models/model.safetensors", given="model.safetensors", phase="init", size=999, mtime_ns=1, mapped=True
        ),
        tr.InitCall(
            name="app:load",
            static=False,
            event=0,
            arguments="cd" * 32,
            event_reads={"prompt": "ef" * 32},
            event_whole=False,
            duration_s=3.5,
            operators=40,
            threads=2,
            peak_rss=10**9,
        ),
        weight(0, "model.head", "model.tied"),
        weight(1, "model.embedding"),
        weight(2, "model.spare"),
        tr.FirstUse(weight=1, event=0, module="model.embedding", operator="aten.embedding", ordinal=0, time_s=0.01),
        tr.FirstUse(weight=0, event=0, module="model", operator="aten.linear", ordinal=7, time_s=0.5),
        tr.WeightWritten(weight=1, event=0, operator="aten.add_"),
        tr.PathAsked(path="/models/adapters", given="adapters", phase="init", kind="listed", found=True),
        tr.Executed(files=("/lib/heavy/core.py", "/home/someone/project/app.py")),
        tr.EnvironReads(variables={"HOME": "0" * 64}),
        tr.Kernel(event=0, signature=kernel),
        tr.Invocation(
            event=0,
            pieces=4,
            output="01" * 32,
            first_call_s=0.75,
            first_piece_s=0.5,
            second_call_s=0.5,
            operators=90,
            peak_rss=2 * 10**9,
            repeatable=True,
        ),
        tr.Environment(fingerprint=fingerprint(distributions={"heavy": "1.0"})),
        tr.TracingCost(total_s=9.0, hooks_s=1.0, digests_s=0.5, profiler_s=2.0, profile="/tmp/app.pt.trace.json.gz"),
    ]


def write_trace(path: Path, records: list[tr.AnyRecord], complete: bool = True) -> bytes:
    writer = trace_file.TraceWriter(path)
    for record in records:
        writer.write(record)
    writer.close(complete)
    return path.read_bytes()


def raw_trace(*bodies: Any) -> bytes:
    """A trace of any bodies whatever, its CRCs right: what somebody makes who knows the format."""
    data, crc = b"", 0
    for body in bodies:
        encoded = msgspec.msgpack.encode(body)
        crc = zlib.crc32(encoded, crc)
        data += b"\x92" + encoded + msgspec.msgpack.encode(crc)
    return data


WEIGHTS = (
    Entry(name="model.embedding", dtype="bfloat16", shape=(5, 4), nbytes=40),
    Entry(name="model.empty", dtype="float32", shape=(0, 3), nbytes=0),
    Entry(name="model.head", dtype="float32", shape=(3, 3), nbytes=36),
)


def weight_bytes(entry: Entry) -> bytes:
    return random.Random(entry.name).randbytes(entry.nbytes)


def write_bundle(path: Path, code: str = "def handler(event, context):\n    return event\n", **changed: Any) -> Manifest:
    """A bundle by hand: no snapshot, three weights, one file of code. `changed` are fields of its manifest."""
    files = {
        "code/app.py": code.encode(),
        "dynamic_init.py": b"def serves(event):\n    return True\n\n\ndef refusal(event):\n    return None\n",
        "prewarm.json": json.dumps(
            {"schema": 1, "kernels": [{"operator": "aten.linear", "operands": ["[]"], "count": 1}]}
        ).encode(),
    }
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    (shard,) = plan_shards(WEIGHTS, None)

    def chunks(placement: Placement) -> list[memoryview]:
        return [memoryview(weight_bytes(placement.entry))]

    digests = write_shard(path, shard, chunks, lambda nbytes: None)
    listed = {name: BundleFile(size=len(content), sha256=sha256_of(content)) for name, content in files.items()}
    weights = tuple(
        BundleWeight(
            name=place.entry.name,
            dtype=place.entry.dtype,
            shape=place.entry.shape,
            nbytes=place.entry.nbytes,
            device="cpu",
            file=place.file,
            offset=place.offset,
            sha256=digests.sha256[place.entry.name],
            xxh3=digests.xxh3[place.entry.name],
            first_use=index if index < 2 else None,
            operator="aten.linear" if index < 2 else "",
            folded=("gguf.dequantize",) if index == 0 else (),
            sources=("model.gguf:blk.0",) if index == 0 else (),
        )
        for index, place in enumerate(shard.placements)
    )
    manifest = Manifest(
        schema=SCHEMA,
        tidalctl="0.1.0",
        function=Function(module="app", handler="handler", source="app.py"),
        init="app:load",
        strategy="eager",
        guard=Guard(static=True),
        fingerprint=fingerprint(),
        events=(digest_json(EVENT),),
        reproducible=True,
        files={**listed, shard.file: BundleFile(size=shard.size, sha256=digests.whole)},
        weights=weights,
        globals=(),
        modules=("app", "heavy", "heavy.core"),
        readahead=(),
        fallbacks=(Fallback(part="state", strategy="eager", cause='state["model"].foo: a lambda', code="not-picklable"),),
    )
    manifest = seal(msgspec.structs.replace(manifest, **changed))
    (path / MANIFEST).write_bytes(encode_manifest(manifest))
    observed = {"first_uses": {weight.name: 0.25 for weight in weights[:2]}, "executed": ["app", "heavy.core"]}
    (path / PROVENANCE).write_text(json.dumps(observed))
    return manifest


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def mutations(data: bytes, count: int) -> list[bytes]:
    """`count` damaged copies, the same each time: bits flipped, bytes replaced, runs dropped, doubled, swapped and cut off."""
    dice = random.Random(len(data))
    special = (0x00, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xC4, 0xC7, 0xD4, 0xD9, 0xDB, 0xDD, 0xDF, 0xFF)
    found = []
    for number in range(count):
        copy, at = bytearray(data), dice.randrange(len(data))
        size = dice.randint(1, 24)
        match number % 6:
            case 0:
                copy[at] ^= 1 << dice.randrange(8)
            case 1:
                copy[at] = dice.choice(special)
            case 2:
                del copy[at : at + size]
            case 3:
                copy[at:at] = copy[at : at + size]
            case 4:
                other = dice.randrange(len(data))
                copy[at : at + size], copy[other : other + size] = copy[other : other + size], copy[at : at + size]
            case 5:
                copy[at:at] = dice.randbytes(size)
        found.append(bytes(copy))
    return found


def outcome(read: Callable[[], Any]) -> Any:
    """What reading gave, or the class of the ArtifactError that it raised. Any other exception is the test's failure."""
    try:
        return read()
    except ArtifactError as error:
        assert error.message
        return type(error)


def change(body: Any, path: list[Any], value: Any, drop: bool) -> Any:
    """`body` with the field at `path` replaced or dropped."""
    copy = json.loads(json.dumps(body))
    place = copy
    for step in path[:-1]:
        place = place[step]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copy


def paths(body: Any, prefix: tuple[Any, ...] = ()) -> list[list[Any]]:
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    return [path for key, value in items for path in ([*prefix, key], *paths(value, (*prefix, key)))]


# what hypothesis puts in a field's place
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(["header", "closing", "tidalctl.trace", "..", "/etc/passwd", "snapshot"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
