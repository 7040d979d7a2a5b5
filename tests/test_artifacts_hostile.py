"""Whatever happened to an artifact's bytes, reading it gives what was written or a typed ArtifactError, and nothing else.

The samples of every kind of record are made here; other tests borrow them.
"""

import hashlib
import json
import os
import platform
import random
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from tidalctl.artifacts import trace as tr
from tidalctl.artifacts.bundle import check_file, open_bundle
from tidalctl.artifacts.errors import ArtifactError, Corrupt, NewerSchema, NotAnArtifact, PathEscapes, TidalError, Truncated
from tidalctl.artifacts.manifest import (
    MANIFEST,
    BundleFile,
    BundleWeight,
    Fallback,
    Guard,
    Manifest,
    decode_manifest,
    encode_manifest,
    seal,
)
from tidalctl.artifacts.records import Fingerprint, Function, KernelSignature, canonical_json, digest_json
from tidalctl.artifacts.weights import Entry, Placement, check_header, plan_shards, write_shard

FUNCTION = Function(module="app", handler="handler", source="app.py", init="app:load")
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
            schema=1,
            tidalctl="0.1.0",
            function=FUNCTION,
            root="/home/someone/project",
            cwd="/home/someone",
            argv=("--fast",),
            events=(tr.Event(text=json.dumps(EVENT), digest=digest_json(EVENT)),),
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
    writer = tr.TraceWriter(path)
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
        "dynamic_init.py": b"def serves(event):\n    return True\n",
        "prewarm.json": json.dumps(
            {"schema": 1, "kernels": [{"operator": "aten.linear", "operands": ["[]"], "count": 1, "time_s": 0.5}]}
        ).encode(),
    }
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    (shard,) = plan_shards(WEIGHTS, None)

    def chunks(placement: Placement) -> list[memoryview]:
        return [memoryview(weight_bytes(placement.entry))]

    whole, digests = write_shard(path, shard, chunks, lambda nbytes: None)
    listed = {name: BundleFile(size=len(content), sha256=_sha256(content)) for name, content in files.items()}
    weights = tuple(
        BundleWeight(
            name=place.entry.name,
            dtype=place.entry.dtype,
            shape=place.entry.shape,
            nbytes=place.entry.nbytes,
            device="cpu",
            file=place.file,
            offset=place.offset,
            sha256=digests[place.entry.name],
            first_use=index if index < 2 else None,
            first_use_s=0.25 if index < 2 else None,
            operator="aten.linear" if index < 2 else "",
            folded=("gguf.dequantize",) if index == 0 else (),
            sources=("model.gguf:blk.0",) if index == 0 else (),
        )
        for index, place in enumerate(shard.placements)
    )
    manifest = Manifest(
        schema=1,
        tidalctl="0.1.0",
        function=Function(module="app", handler="handler", source="app.py"),
        init="app:load",
        strategy="eager",
        guard=Guard(static=True),
        fingerprint=fingerprint(),
        events=(digest_json(EVENT),),
        reproducible=True,
        files={**listed, shard.file: BundleFile(size=shard.size, sha256=whole)},
        weights=weights,
        globals=(),
        modules=("app", "heavy", "heavy.core"),
        executed=("app", "heavy.core"),
        readahead=(),
        fallbacks=(Fallback(part="state", strategy="eager", cause='state["model"].foo: a lambda'),),
    )
    manifest = seal(msgspec.structs.replace(manifest, **changed))
    (path / MANIFEST).write_bytes(encode_manifest(manifest))
    return manifest


def _sha256(content: bytes) -> str:
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


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    write_trace(tmp_path / "app.trace", sample_records())
    return tmp_path / "app.trace"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "app.bundle")
    return tmp_path / "app.bundle"


# Traces


def _records_of(path: Path) -> Any:
    return outcome(lambda: tr.read_trace(path).records)


def _agrees(found: Any, written: list[tr.AnyRecord]) -> bool:
    """Refused, or a beginning of what was written: damage at the end of a trace can't be told from a trace that still grows."""
    return isinstance(found, type) or found == written[: len(found)]


def test_a_trace_comes_back_as_it_was_written(trace_file: Path) -> None:
    trace = tr.read_trace(trace_file)
    assert trace.complete
    assert trace.records[:-1] == sample_records()


def test_a_trace_cut_anywhere_is_refused_or_incomplete(trace_file: Path) -> None:
    data, written = trace_file.read_bytes(), tr.read_trace(trace_file).records
    seen = set()
    for length in range(len(data)):
        trace_file.write_bytes(data[:length])
        found = outcome(lambda: tr.read_trace(trace_file))
        if isinstance(found, type):
            assert found is Truncated
        else:
            assert not found.complete
            assert found.records == written[: len(found.records)]
            seen.add(len(found.records))
    assert seen == set(range(1, len(written)))


def test_a_growing_trace_can_be_read_after_each_record(tmp_path: Path) -> None:
    path, records = tmp_path / "app.trace", sample_records()
    writer = tr.TraceWriter(path)
    assert outcome(lambda: tr.read_trace(path)) is Truncated
    for count, record in enumerate(records, 1):
        writer.write(record)
        trace = tr.read_trace(path)
        assert (len(trace.records), trace.complete) == (count, False)
    writer.close(complete=False)
    assert tr.read_trace(path).records == records


def test_a_damaged_trace_is_refused_or_read_right(trace_file: Path) -> None:
    data, written = trace_file.read_bytes(), tr.read_trace(trace_file).records
    refused = 0
    for damaged in mutations(data, MUTATIONS):
        trace_file.write_bytes(damaged)
        found = _records_of(trace_file)
        assert _agrees(found, written)
        refused += isinstance(found, type)
    assert refused > MUTATIONS * 0.8  # most damage is noticed; the rest is a cut end, or does not change what is said


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


def _change(body: Any, path: list[Any], value: Any, drop: bool) -> Any:
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


def _paths(body: Any, prefix: tuple[Any, ...] = ()) -> list[list[Any]]:
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    return [path for key, value in items for path in ([*prefix, key], *_paths(value, (*prefix, key)))]


BODIES = [msgspec.to_builtins(record) for record in sample_records()]


@fixed
@given(data=st.data())
def test_a_trace_with_a_forged_field_is_refused_or_says_just_that(tmp_path: Path, data: st.DataObject) -> None:
    """The CRCs are made right again, so that only the schema stands between a forged value and the reader."""
    number = data.draw(st.integers(0, len(BODIES) - 1))
    path = data.draw(st.sampled_from(_paths(BODIES[number])))
    forged = list(BODIES)
    forged[number] = _change(BODIES[number], path, data.draw(values), data.draw(st.booleans()))
    file = tmp_path / "forged.trace"
    file.write_bytes(raw_trace(*forged))
    found = _records_of(file)
    if not isinstance(found, type):
        assert [msgspec.msgpack.encode(record) for record in found] == [msgspec.msgpack.encode(body) for body in forged]


@fixed
@given(noise=st.binary(max_size=200))
def test_noise_is_not_a_trace(tmp_path: Path, noise: bytes) -> None:
    file = tmp_path / "noise.trace"
    file.write_bytes(noise)
    assert issubclass(_records_of(file), ArtifactError)
    file.write_bytes(raw_trace(BODIES[0]) + noise)
    found = _records_of(file)
    assert isinstance(found, type) or found == sample_records()[:1]


def test_a_trace_of_a_newer_schema_is_refused_as_such(tmp_path: Path) -> None:
    file = tmp_path / "new.trace"
    file.write_bytes(raw_trace({**BODIES[0], "schema": 2, "unheard": "of"}))
    with pytest.raises(NewerSchema, match="schema 2"):
        tr.read_trace(file)


def test_records_dropped_doubled_or_moved_are_noticed(trace_file: Path, tmp_path: Path) -> None:
    items = [raw_trace(body) for body in BODIES]
    data = trace_file.read_bytes()
    with pytest.raises(Corrupt):  # each CRC is right by itself, but they are chained
        trace_file.write_bytes(b"".join(items))
        tr.read_trace(trace_file)
    with pytest.raises(Corrupt):
        trace_file.write_bytes(data + raw_trace({"type": "closing", "records": 1}))
        tr.read_trace(trace_file)
    with pytest.raises(Corrupt):
        trace_file.write_bytes(raw_trace(BODIES[0], {"type": "closing", "records": 7}))
        tr.read_trace(trace_file)


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(b"\x92\xdd\xff\xff\xff\xff", id="an array of four billion"),
        pytest.param(b"\x92\xdf\xff\xff\xff\xff", id="a map of four billion"),
        pytest.param(b"\x92\xdb\xff\xff\xff\xff", id="a string of four billion"),
        pytest.param(b"\x92\xc6\xff\xff\xff\xff", id="bytes of four billion"),
        pytest.param(b"\x91" * 100_000, id="nested a hundred thousand deep"),
        pytest.param(b"\x92" + b"\xdd\x00\x0f\x00\x00" * 200_000, id="a million entries at each of many levels"),
        pytest.param(b"\x92\xd7\xff" + b"\xff" * 8, id="a timestamp that is none"),
        pytest.param(b"\x92\x81\xc4\x04type\xa6header\x00", id="keys that are bytes"),
        pytest.param(b"\x92\x81\xa4type\x92\xc1\xc1\x00", id="a byte that msgpack never uses"),
        pytest.param(b"hello, world\n", id="text"),
        pytest.param(b"PK\x03\x04" + bytes(40), id="a zip"),
    ],
)
def test_lengths_that_lie_are_refused_without_memory_or_time(tmp_path: Path, claim: bytes) -> None:
    file = tmp_path / "lie.trace"
    file.write_bytes(claim)
    with pytest.raises(ArtifactError):
        tr.read_trace(file)
    file.write_bytes(raw_trace(BODIES[0]) + claim)
    found = _records_of(file)
    assert isinstance(found, type) or found == sample_records()[:1]


def test_what_is_no_file_is_no_trace(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.trace")
    for path in (tmp_path, tmp_path / "pipe.trace", Path("/dev/zero")):
        with pytest.raises(NotAnArtifact):
            tr.read_trace(path)


# Manifests


def _manifest_of(data: bytes) -> Any:
    return outcome(lambda: decode_manifest(data, Path("manifest.json")))


def test_a_bundle_opens_as_it_was_written(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path / "app.bundle")
    assert open_bundle(tmp_path / "app.bundle") == manifest
    for name in manifest.files:
        check_file(tmp_path / "app.bundle", manifest, name)


def test_a_manifest_cut_anywhere_is_refused(bundle: Path) -> None:
    data, manifest = (bundle / MANIFEST).read_bytes(), open_bundle(bundle)
    for length in range(len(data)):
        found = _manifest_of(data[:length])
        assert found in (Truncated, Corrupt) or (length == len(data) - 1 and found == manifest)


def test_a_damaged_manifest_is_refused_or_read_right(bundle: Path) -> None:
    data, manifest = (bundle / MANIFEST).read_bytes(), open_bundle(bundle)
    refused = 0
    for damaged in mutations(data, MUTATIONS):
        found = _manifest_of(damaged)
        assert isinstance(found, type) or found == manifest
        refused += isinstance(found, type)
    assert refused > MUTATIONS * 0.8


@fixed
@given(data=st.data())
def test_a_manifest_with_a_forged_field_is_refused_or_says_just_that(tmp_path: Path, data: st.DataObject) -> None:
    """The digest is made right again: types, paths and bounds are all that stands between a forged value and a run."""
    body = _forge(data)
    bundle = tmp_path / "forged.bundle"
    if not bundle.exists():
        write_bundle(bundle)
    (bundle / MANIFEST).write_bytes(json.dumps(body).encode("utf-8", "replace"))
    found = outcome(lambda: open_bundle(bundle))
    if not isinstance(found, type):
        root = bundle.resolve()
        assert all((bundle / name).resolve().is_relative_to(root) for name in (*found.files, *found.readahead))
        assert all(w.offset >= 0 and w.offset + w.nbytes <= found.files[w.file].size for w in found.weights)


def _forge(data: st.DataObject) -> Any:
    path = data.draw(st.sampled_from(_paths(SEALED)))
    body = _change(SEALED, path, data.draw(values.filter(_is_json)), data.draw(st.booleans()))
    body.pop("digest", None)
    body["digest"] = digest_json(body)
    return body


def _is_json(value: Any) -> bool:
    try:
        canonical_json(value)
    except (TypeError, ValueError):
        return False
    return True


def _sample_manifest() -> Manifest:
    with tempfile.TemporaryDirectory() as folder:
        return write_bundle(Path(folder) / "app.bundle")


MANIFEST_SAMPLE = _sample_manifest()
SEALED = msgspec.to_builtins(MANIFEST_SAMPLE)


@pytest.mark.parametrize(
    "name",
    ["../evil.py", "code/../../evil.py", "/etc/passwd", "code\\evil.py", "code//evil.py", "./evil.py", ".", "", "a\0b", "a/"],
)
def test_a_path_that_escapes_is_refused_wherever_it_stands(bundle: Path, name: str) -> None:
    manifest = open_bundle(bundle)
    stored = BundleFile(size=0, sha256=_sha256(b""))
    function = msgspec.structs.replace(manifest.function, source=name)
    for changed in ({"files": {**manifest.files, name: stored}}, {"readahead": (name,)}, {"function": function}):
        forged = seal(msgspec.structs.replace(manifest, **changed))
        with pytest.raises(PathEscapes):
            decode_manifest(encode_manifest(forged), bundle)


def test_a_link_that_leads_out_of_a_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    content = (bundle / "code/app.py").read_bytes()
    (tmp_path / "outside.py").write_bytes(content)
    (bundle / "code/app.py").unlink()
    (bundle / "code/app.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(PathEscapes):
        open_bundle(bundle)
    (bundle / "code/app.py").unlink()
    (bundle / "code").rmdir()
    (tmp_path / "code").mkdir()
    (tmp_path / "code/app.py").write_bytes(content)
    (bundle / "code").symlink_to(tmp_path / "code")
    with pytest.raises(PathEscapes):
        open_bundle(bundle)


def test_a_pipe_in_place_of_a_file_is_refused_without_waiting(tmp_path: Path) -> None:
    bundle = tmp_path / "app.bundle"
    empty = BundleFile(size=0, sha256=_sha256(b""))
    manifest = write_bundle(bundle)
    forged = seal(msgspec.structs.replace(manifest, files={**manifest.files, "code/empty.py": empty}))
    (bundle / MANIFEST).write_bytes(encode_manifest(forged))
    os.mkfifo(bundle / "code/empty.py")
    with pytest.raises(ArtifactError):
        open_bundle(bundle)
    (bundle / MANIFEST).unlink()
    os.mkfifo(bundle / MANIFEST)
    with pytest.raises(ArtifactError):
        open_bundle(bundle)
    (bundle / MANIFEST).unlink()
    (bundle / MANIFEST).mkdir()
    with pytest.raises(ArtifactError):
        open_bundle(bundle)


def test_a_bundle_of_a_newer_schema_is_refused_as_such(bundle: Path) -> None:
    body = {**SEALED, "schema": 2, "unheard": "of"}
    with pytest.raises(NewerSchema, match="schema 2"):
        decode_manifest(json.dumps(body).encode(), bundle)


def test_a_file_that_changed_shrank_or_left_is_refused(bundle: Path) -> None:
    manifest = open_bundle(bundle)
    file = bundle / "code/app.py"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"#")
    with pytest.raises(Corrupt):
        check_file(bundle, open_bundle(bundle), "code/app.py")
    for wrong, kind in ((content[:-1], Truncated), (content + b"#", Corrupt)):
        file.write_bytes(wrong)
        with pytest.raises(kind):
            open_bundle(bundle)
    file.unlink()
    with pytest.raises(Truncated, match="is missing"):
        open_bundle(bundle)
    assert manifest.digest


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"strategy": "telepathy"}, id="an unknown strategy"),
        pytest.param({"strategy": "snapshot"}, id="a snapshot without a skeleton"),
        pytest.param({"files": {}}, id="weights in no file"),
        pytest.param({"weights": MANIFEST_SAMPLE.weights * 2}, id="two weights of one name"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(bundle: Path, changed: dict[str, Any]) -> None:
    forged = seal(msgspec.structs.replace(open_bundle(bundle), **changed))
    with pytest.raises(Corrupt):
        decode_manifest(encode_manifest(forged), bundle)


@pytest.mark.parametrize("field", ["offset", "nbytes"])
def test_a_weight_out_of_its_files_bounds_is_refused(bundle: Path, field: str) -> None:
    manifest = open_bundle(bundle)
    for value in (-1, 2**40, 2**70):
        forged = msgspec.structs.replace(manifest.weights[0], **{field: value})
        body = msgspec.to_builtins(msgspec.structs.replace(manifest, weights=(forged,)))
        body.pop("digest")
        body["digest"] = digest_json(body)
        with pytest.raises(Corrupt):
            decode_manifest(json.dumps(body).encode(), bundle)


# Weights files


def _header_of(path: Path) -> Any:
    return outcome(lambda: check_header(path))


def test_a_weights_file_cut_anywhere_is_refused(bundle: Path) -> None:
    file = bundle / "weights.safetensors"
    data = file.read_bytes()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        assert _header_of(file) in (Truncated, Corrupt)


def test_a_damaged_weights_header_is_refused_or_describes_a_whole_file(bundle: Path) -> None:
    """What the header alone can't tell (a renamed tensor, another dtype of the same size) the file's sha256 tells."""
    file, manifest = bundle / "weights.safetensors", open_bundle(bundle)
    data = file.read_bytes()
    head = 8 + int.from_bytes(data[:8], "little")
    refused = 0
    for damaged in mutations(data[:head], MUTATIONS):
        file.write_bytes(damaged + data[head:])
        found = _header_of(file)
        refused += isinstance(found, type)
        if not isinstance(found, type):
            _assert_whole(found, len(data) - head)
        if damaged != data[:head]:
            with pytest.raises(Corrupt):
                check_file(bundle, manifest, file.name)
    assert refused > MUTATIONS * 0.4


def _assert_whole(header: dict[str, Any], nbytes: int) -> None:
    """Every byte belongs to one tensor."""
    spans = sorted(tuple(value["data_offsets"]) for key, value in header.items() if key != "__metadata__")
    position = 0
    for begin, end in spans:
        assert begin == position
        position = end
    assert position == nbytes


@fixed
@given(data=st.data())
def test_a_forged_weights_header_is_refused_or_what_the_stock_reader_takes(tmp_path: Path, data: st.DataObject) -> None:
    (shard,) = plan_shards(WEIGHTS, None)
    header = json.loads(shard.header[8:])
    path = data.draw(st.sampled_from(_paths(header)))
    body = _change(header, path, data.draw(values.filter(_is_json)), data.draw(st.booleans()))
    text = json.dumps(body).encode()
    file = tmp_path / "forged.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(shard.size - len(shard.header)))
    if not isinstance(_header_of(file), type):
        with safe_open(file, framework="numpy") as opened:
            opened.keys()


@fixed
@given(noise=st.binary(max_size=100), length=st.integers(0, 2**64 - 1))
def test_noise_is_not_a_weights_file(tmp_path: Path, noise: bytes, length: int) -> None:
    file = tmp_path / "noise.safetensors"
    for claimed in (length, len(noise)):
        file.write_bytes(claimed.to_bytes(8, "little") + noise)
        assert issubclass(_header_of(file), TidalError)


@pytest.mark.parametrize(
    "offsets", [[], [0], [0, 1, 2], ["0", "1"], [0.0, 80.0], [False, True], [-8, 0], [0, 2**70], None, {}, "ab", [None, None]]
)
def test_offsets_that_are_no_pair_of_counts_are_refused(tmp_path: Path, offsets: Any) -> None:
    text = json.dumps({"weight": {"dtype": "U8", "shape": [80], "data_offsets": offsets}}).encode()
    file = tmp_path / "odd.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(80))
    assert _header_of(file) in (Corrupt, Truncated)
