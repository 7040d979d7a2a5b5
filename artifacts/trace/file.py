"""The trace file: records appended one after the other, each with a running checksum, and read back."""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import msgspec

from tidalctl.artifacts.errors import ArtifactError, Corrupt, NewerSchema, NotAnArtifact, OlderSchema, Truncated
from tidalctl.artifacts.trace.records import FORMAT, SCHEMA, AnyRecord, Closing, Header

MAX_RECORD = 64 * 2**20  # bytes; a single record is never near this, and a length that claims more is a lie


MAX_ITEMS = 2**18  # of one list or map in a record


class TraceWriter:
    """Appends records to a file, each flushed to the kernel at once so that a killed process leaves what it had."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by close()
        self._crc = 0
        self._count = 0

    def write(self, record: AnyRecord) -> None:
        body = msgspec.msgpack.encode(record)
        self._crc = zlib.crc32(body, self._crc)
        left = memoryview(b"\x92" + body + msgspec.msgpack.encode(self._crc))
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:  # around it the user's function may run, which is not to blame
            raise ArtifactError(f"{error.strerror}: {self._path}", "free some space, or name another with -o") from None
        self._count += 1

    def close(self, complete: bool) -> None:
        """Write the closing record where the trace is complete, and make all of it durable."""
        if complete:
            self.write(Closing(records=self._count))
        os.fsync(self._file.fileno())
        self._file.close()


class Trace:
    """The records of one trace, by type. `complete` says whether the closing record was there."""

    def __init__(self, header: Header, records: list[AnyRecord], complete: bool) -> None:
        self.header = header
        self.records = records
        self.complete = complete

    def of(self, kind: type[Any]) -> list[Any]:
        return [record for record in self.records if isinstance(record, kind)]

    def one(self, kind: type[Any]) -> Any | None:
        found = self.of(kind)
        return found[0] if found else None


def _items(data: bytes) -> Iterator[tuple[Any, int]]:
    """Yield each `[record, crc]` that is whole. A rest that is cut short ends the stream; anything else is Corrupt."""
    # the limits must not hang on len(data): in a trace that still grows, the last record's lengths point past its end
    unpacker = msgpack.Unpacker(
        raw=False,
        strict_map_key=True,
        max_buffer_size=max(len(data), 1),
        max_str_len=MAX_RECORD,
        max_bin_len=MAX_RECORD,
        max_ext_len=MAX_RECORD,
        max_array_len=MAX_ITEMS,
        max_map_len=MAX_ITEMS,
    )
    unpacker.feed(data)
    while True:
        try:
            item = unpacker.unpack()
        except msgpack.OutOfData:
            return
        except (ValueError, RecursionError, msgpack.UnpackException) as error:
            raise Corrupt(f"the trace is not msgpack past byte {unpacker.tell()}: {error}", "record it again") from None
        if not (isinstance(item, list) and len(item) == 2 and isinstance(item[0], dict) and isinstance(item[1], int)):
            raise Corrupt("the trace holds something that is not a record", "record it again")
        yield item[0], item[1]


def read_trace(path: Path) -> Trace:
    """Read a trace, whole or still growing.

    Raises NotAnArtifact, OlderSchema, NewerSchema, Corrupt or Truncated (not even a header), all TidalErrors.
    """
    if path.is_dir():
        raise NotAnArtifact(f"{path} is a directory, not a trace", "a bundle is given to: tidalctl run, inspect or verify")
    if path.exists() and not path.is_file():
        raise NotAnArtifact(f"{path} is not a file that can be read to its end", "copy it into a file first")
    data = path.read_bytes()
    if data and data[:1] != b"\x92":
        raise NotAnArtifact(f"{path} is not a trace", "make one: tidalctl trace app.py --event '{…}'")
    records: list[AnyRecord] = []
    crc = 0
    for body, stated in _items(data):
        if not records:
            _check_header(path, body)
        try:
            record: AnyRecord = msgspec.convert(body, AnyRecord)
        except msgspec.ValidationError as error:
            raise Corrupt(f"{path}: record {len(records)} does not fit the schema: {error}", "record it again") from None
        crc = zlib.crc32(msgspec.msgpack.encode(record), crc)
        if crc != stated:
            raise Corrupt(f"{path}: record {len(records)} is not what was written (its CRC differs)", "record it again")
        if records and isinstance(records[-1], Closing):
            raise Corrupt(f"{path}: records follow the closing record", "record it again")
        records.append(record)
    if not records:
        raise Truncated(f"{path} ends before its header does", "record it again")
    header, last = records[0], records[-1]
    if not isinstance(header, Header):
        raise NotAnArtifact(f"{path} is not a trace", "make one: tidalctl trace app.py --event '{…}'")
    complete = isinstance(last, Closing)
    if isinstance(last, Closing) and last.records != len(records) - 1:
        raise Corrupt(f"{path}: {last.records} records were written, {len(records) - 1} are there", "record it again")
    return Trace(header, records, complete)


def _check_header(path: Path, body: dict[str, Any]) -> None:
    if body.get("type") != "header" or body.get("format", FORMAT) != FORMAT:
        raise NotAnArtifact(f"{path} is not a trace", "make one: tidalctl trace app.py --event '{…}'")
    schema = body.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerSchema(f"{path} has trace schema {schema}; this tidalctl reads {SCHEMA}", "upgrade tidalctl")
    if isinstance(schema, int) and schema < SCHEMA:
        raise OlderSchema(f"{path} has trace schema {schema}; this tidalctl reads {SCHEMA}", "trace the function again")
