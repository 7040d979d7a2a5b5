"""Whatever happened to a trace's bytes, reading it gives what was written or a typed ArtifactError, and nothing else."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_artifacts import MUTATIONS, change, fixed, mutations, outcome, paths, raw_trace, sample_records, values, write_trace

from tidalctl.artifacts.errors import ArtifactError, Corrupt, NewerSchema, NotAnArtifact, OlderSchema, Truncated
from tidalctl.artifacts.trace import records as tr
from tidalctl.artifacts.trace.file import TraceWriter, read_trace


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    write_trace(tmp_path / "app.trace", sample_records())
    return tmp_path / "app.trace"


def _records_of(path: Path) -> Any:
    return outcome(lambda: read_trace(path).records)


def _agrees(found: Any, written: list[tr.AnyRecord]) -> bool:
    """Refused, or a beginning of what was written: damage at the end of a trace can't be told from a trace that still grows."""
    return isinstance(found, type) or found == written[: len(found)]


def test_a_trace_cut_anywhere_is_refused_or_incomplete(trace_file: Path) -> None:
    data, written = trace_file.read_bytes(), read_trace(trace_file).records
    assert read_trace(trace_file).complete
    assert written[:-1] == sample_records()
    seen = set()
    for length in range(len(data)):
        trace_file.write_bytes(data[:length])
        found = outcome(lambda: read_trace(trace_file))
        if isinstance(found, type):
            assert found is Truncated
        else:
            assert not found.complete
            assert found.records == written[: len(found.records)]
            seen.add(len(found.records))
    assert seen == set(range(1, len(written)))


def test_a_growing_trace_can_be_read_after_each_record(tmp_path: Path) -> None:
    path, records = tmp_path / "app.trace", sample_records()
    writer = TraceWriter(path)
    assert outcome(lambda: read_trace(path)) is Truncated
    for count, record in enumerate(records, 1):
        writer.write(record)
        trace = read_trace(path)
        assert (len(trace.records), trace.complete) == (count, False)
    writer.close(complete=False)
    assert read_trace(path).records == records


def test_a_damaged_trace_is_refused_or_read_right(trace_file: Path) -> None:
    data, written = trace_file.read_bytes(), read_trace(trace_file).records
    refused = 0
    for damaged in mutations(data, MUTATIONS):
        trace_file.write_bytes(damaged)
        found = _records_of(trace_file)
        assert _agrees(found, written)
        refused += isinstance(found, type)
    assert refused > MUTATIONS * 0.8  # most damage is noticed; the rest is a cut end, or does not change what is said


BODIES = [msgspec.to_builtins(record) for record in sample_records()]


@fixed
@given(data=st.data())
def test_a_trace_with_a_forged_field_is_refused_or_says_just_that(tmp_path: Path, data: st.DataObject) -> None:
    """The CRCs are made right again, so that only the schema stands between a forged value and the reader."""
    number = data.draw(st.integers(0, len(BODIES) - 1))
    path = data.draw(st.sampled_from(paths(BODIES[number])))
    forged = list(BODIES)
    forged[number] = change(BODIES[number], path, data.draw(values), data.draw(st.booleans()))
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


@pytest.mark.parametrize(("schema", "error"), [(tr.SCHEMA + 1, NewerSchema), (tr.SCHEMA - 1, OlderSchema)])
def test_a_trace_of_another_schema_is_refused_as_such(tmp_path: Path, schema: int, error: type[ArtifactError]) -> None:
    file = tmp_path / "new.trace"
    file.write_bytes(raw_trace({**BODIES[0], "schema": schema, "unheard": "of"}))
    with pytest.raises(error, match=f"schema {schema}"):
        read_trace(file)


def test_records_dropped_doubled_or_moved_are_noticed(trace_file: Path, tmp_path: Path) -> None:
    items = [raw_trace(body) for body in BODIES]
    data = trace_file.read_bytes()
    with pytest.raises(Corrupt):  # each CRC is right by itself, but they are chained
        trace_file.write_bytes(b"".join(items))
        read_trace(trace_file)
    with pytest.raises(Corrupt):
        trace_file.write_bytes(data + raw_trace({"type": "closing", "records": 1}))
        read_trace(trace_file)
    with pytest.raises(Corrupt):
        trace_file.write_bytes(raw_trace(BODIES[0], {"type": "closing", "records": 7}))
        read_trace(trace_file)


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(b"\x92\xdd\xff\xff\xff\xff", id="an array of four billion"),
        pytest.param(b"\x92\xdb\xff\xff\xff\xff", id="a string of four billion"),
        pytest.param(b"\x91" * 100_000, id="nested a hundred thousand deep"),
        pytest.param(b"\x92" + b"\xdd\x00\x0f\x00\x00" * 200_000, id="a million entries at each of many levels"),
        pytest.param(b"\x92\xd7\xff" + b"\xff" * 8, id="a timestamp that is none"),
        pytest.param(b"\x92\x81\xc4\x04type\xa6header\x00", id="keys that are bytes"),
        pytest.param(b"\x92\x81\xa4type\x92\xc1\xc1\x00", id="a byte that msgpack never uses"),
        pytest.param(b"PK\x03\x04" + bytes(40), id="a zip"),
    ],
)
def test_lengths_that_lie_are_refused_without_memory_or_time(tmp_path: Path, claim: bytes) -> None:
    file = tmp_path / "lie.trace"
    file.write_bytes(claim)
    with pytest.raises(ArtifactError):
        read_trace(file)
    file.write_bytes(raw_trace(BODIES[0]) + claim)
    found = _records_of(file)
    assert isinstance(found, type) or found == sample_records()[:1]


def test_what_is_no_file_is_no_trace(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.trace")
    for path in (tmp_path, tmp_path / "pipe.trace", Path("/dev/zero")):
        with pytest.raises(NotAnArtifact):
            read_trace(path)
