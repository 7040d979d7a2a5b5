"""The trace: a msgpack stream of typed records, readable while it grows.

Each item of the stream is `[record, crc]`: a map tagged with its type, and a CRC-32 that is chained over all records so
far, so that a record that was changed, dropped or moved is noticed even before the closing record stands. A trace without its
closing record (the function raised, was killed) still opens; `Trace.complete` is then false.
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import msgspec

from tidalctl.artifacts.errors import ArtifactError, Corrupt, NewerSchema, NotAnArtifact, OlderSchema, Truncated
from tidalctl.artifacts.records import Fingerprint, Function, KernelSignature, Record
from tidalctl.artifacts.tape import TapeRead, TapeStep

SCHEMA = 6
FORMAT = "tidalctl.trace"
MAX_RECORD = 64 * 2**20  # bytes; a single record is never near this, and a length that claims more is a lie
DIGESTED = 64 * 2**20  # bytes of a data file; whether a larger one is what was traced is not looked at
MAX_ITEMS = 2**18  # of one list or map in a record


class Event(Record, frozen=True):
    """One traced request: its JSON text and the digest of its canonical form."""

    text: str
    digest: str


class Header(Record, frozen=True, tag="header"):
    schema: int
    tidalctl: str
    function: Function
    root: str  # the project's folder, absolute: where compile finds the sources again
    cwd: str
    argv: tuple[str, ...]
    events: tuple[Event, ...]
    format: str = FORMAT


class Environment(Record, frozen=True, tag="environment"):
    fingerprint: Fingerprint


class Import(Record, frozen=True, tag="import"):
    """One module in the order in which imports began. Self time leaves out the modules that it imported in turn."""

    name: str
    file: str  # absolute; empty for built-in and namespace modules
    self_s: float
    total_s: float
    phase: str  # start (there before the function), import, init or handler
    importer: str = ""  # the module whose statements asked for it first; empty where that was none
    plain: bool = False  # Python's own loader of source files made it, with nothing of anybody else's in between
    sha256: str = (
        ""  # of a source file of the project, as it was when it was imported; empty where the function wrote it itself
    )


class Executed(Record, frozen=True, tag="executed"):
    """The files whose Python code ran inside the handler."""

    files: tuple[str, ...]


class EnvironReads(Record, frozen=True, tag="environ"):
    """Environment variables that the project's code read before its state was made: digests of [value], [null] where unset."""

    variables: dict[str, str]


class FileOpened(Record, frozen=True, tag="file"):
    """A file that the process opened or mapped. Opens by native libraries are seen only when they map the file."""

    path: str  # absolute
    given: str  # as the program wrote it; empty for a mapping
    phase: str
    size: int
    mtime_ns: int
    mapped: bool = False
    touched: tuple[tuple[int, int], ...] = ()  # offset and length of what of a mapped file was in the page tables in the end
    sha256: str = (
        ""  # of a file of the project that is opened outside init, up to DIGESTED; empty where the function writes to it
    )


class SourcesRead(Record, frozen=True, tag="sources"):
    """Python files that were opened as any file is, outside init: what a package looks through while it is imported.

    Also bytecode of modules that failed, or that put another object in their place.
    """

    files: tuple[str, ...]


class FolderScan(Record, frozen=True):
    """What a cached function of a library made of the sources that it found at `path`: see recall.SCANS and recall.to_plain.

    `stamp` is the digest of what the folder held afterwards.
    """

    module: str
    function: str
    path: str  # absolute
    pathlike: bool  # given as a Path, and not as a string
    made: Any
    stamp: str


class ImportWork(Record, frozen=True, tag="work"):
    """What was worked out while the function was imported and comes out the same each time.

    `texts` are mode and source of what `dataclasses` and `collections` compiled; `patterns` what `re` compiled, whether those were
    bytes (here as Latin-1), and flags.
    """

    texts: tuple[tuple[str, str], ...] = ()
    patterns: tuple[tuple[str, bool, int], ...] = ()
    scans: tuple[FolderScan, ...] = ()


class Source(Record, frozen=True):
    """Where bytes of a weight came from: a file and the key in it (empty where the loader gives none)."""

    file: str
    key: str


class Weight(Record, frozen=True, tag="weight"):
    """One tensor storage of the state that init gave for `event`. `names` are the paths that lead to it, the shortest first.

    `operators` are the operators of init that lie between the sources and the weight. An origin that was not seen is
    the source `unknown`, with an empty key. `identity` is a hash over all of that, arguments and content of the sources included.
    `value` is the tape's number of the tensor that was found over it.
    """

    index: int
    names: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    device: str
    digest: str
    sources: tuple[Source, ...]
    operators: tuple[str, ...]
    event: int = 0
    identity: str = ""
    value: int = -1


class InitCall(Record, frozen=True, tag="init"):
    """One call of init. `event_reads` maps the keys that init read from the event to digests of their values."""

    name: str
    static: bool
    event: int
    arguments: str  # digest of the arguments, with the event itself left out; empty where they are not JSON
    event_reads: dict[str, str]
    event_whole: bool  # the event was iterated, copied or changed, so that any key may matter
    duration_s: float
    operators: int
    threads: int  # threads that init started and that were recorded with it
    peak_rss: int
    ambient: dict[str, str] = {}  # digests of process-wide settings that init changed
    generators: dict[str, str] = {}  # digests of the random generators' states before init
    event_compared: tuple[str, ...] = ()  # keys whose values were compared or looked up, so that each may matter by itself
    numbers_compared: tuple[str, ...] = ()  # keys of JSON files that the event names, of whose numbers the same holds
    parsed: tuple[str, ...] = ()  # files of this kind, absolute, that `json` read: of any other's numbers nobody knows
    probed: dict[str, bool] = {}  # paths that the event names and that init asked about, and whether they were there
    beyond: dict[str, str] | None = (
        None  # texts and paths of this kind that went where nobody follows, and where; before 4, unknown
    )
    skeleton: str = ""  # digest of the state's skeleton; empty where it can't be pickled
    writes: str = ""  # what of its arguments it changes, in words
    first_event_line: int | None = None  # the line of init's own source that first led to a read of the event


class FirstUse(Record, frozen=True, tag="first_use"):
    """The first operator of the handler that read a weight. `time_s` counts from the start of the handler's call."""

    weight: int
    event: int
    module: str
    operator: str
    ordinal: int
    time_s: float


class WeightWritten(Record, frozen=True, tag="written"):
    weight: int
    event: int
    operator: str


class Kernel(Record, frozen=True, tag="kernel"):
    event: int
    signature: KernelSignature


class Invocation(Record, frozen=True, tag="invocation"):
    """One event's two calls of the handler. Their difference is the first-launch tax, instrumentation cancelling out."""

    event: int
    pieces: int  # values yielded; 0 where the handler returned one
    output: str  # digest of the output's canonical JSON
    first_call_s: float
    first_piece_s: float
    second_call_s: float | None  # None where the handler can't be called twice on one state
    operators: int
    peak_rss: int
    repeatable: bool  # both calls gave the same output, as far as there were two

    @property
    def first_launch_tax_s(self) -> float | None:
        return None if self.second_call_s is None else self.first_call_s - self.second_call_s


class TracingCost(Record, frozen=True, tag="cost"):
    """What tracing added, as far as it can tell: seconds in its own hooks, and in writing things down."""

    total_s: float
    hooks_s: float
    digests_s: float
    profiler_s: float
    profile: str = ""  # the raw profile, where it was kept


class Failure(Record, frozen=True, tag="failure"):
    """Why a trace ends early: what the function raised, or did that can't be recorded. `hint` says what to do about the latter."""

    phase: str
    message: str
    hint: str = ""


class Closing(Record, frozen=True, tag="closing"):
    records: int


AnyRecord = (
    Header
    | Environment
    | Import
    | Executed
    | FileOpened
    | SourcesRead
    | ImportWork
    | EnvironReads
    | TapeRead
    | TapeStep
    | Weight
    | InitCall
    | FirstUse
    | WeightWritten
    | Kernel
    | Invocation
    | TracingCost
    | Failure
    | Closing
)


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
