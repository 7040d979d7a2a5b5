"""The trace: a msgpack stream of typed records, readable while it grows.

Each item of the stream is `[record, crc]`: a map tagged with its type, and a CRC-32 that is chained over all records so
far, so that a record that was changed, dropped or moved is noticed even before the closing record stands. A trace without its
closing record (the function raised, was killed) still opens; `Trace.complete` is then false.
"""

from typing import Any

from tidalctl.artifacts.records import Fingerprint, Function, KernelSignature, Record
from tidalctl.artifacts.trace.tape import TapeRead, TapeStep

SCHEMA = 11
FORMAT = "tidalctl.trace"
DIGESTED = 64 * 2**20  # bytes of a data file; whether a larger one is what was traced is not looked at


class Event(Record, frozen=True):
    """One traced request: the digest of its canonical form, and its JSON text where that was read from NAME.events.

    `context` is the JSON text of the fields that `--context` gave, empty without any. In a trace's file there are neither of the two:
    see artifacts.trace.events.
    """

    digest: str
    text: str = ""
    context: str = ""


class Header(Record, frozen=True, tag="header"):
    """`vary` are fields of the event for any value of which init takes the same steps, as the user says.

    With `once` (`--once`) the handler is called no more often than needed.
    """

    schema: int
    tidalctl: str
    function: Function
    root: str  # the project's folder, absolute: where compile finds the sources again
    cwd: str
    argv: tuple[str, ...]
    events: tuple[Event, ...]
    vary: tuple[str, ...] = ()
    once: bool = False
    format: str = FORMAT


class Environment(Record, frozen=True, tag="environment"):
    fingerprint: Fingerprint


class Import(Record, frozen=True, tag="import"):
    """One module. Self time leaves out the modules that it imported in turn.

    First come those of the main thread, in the order in which their imports began, then the others by name.
    """

    name: str
    file: str  # absolute; empty for built-in and namespace modules
    self_s: float
    total_s: float
    phase: str  # start (there before the function), import, init or handler
    importer: str = ""  # the module whose statements asked for it first; empty where that was none
    aside: bool = False  # another thread than the main one imported it, so that its phase says nothing
    plain: bool = False  # Python's own loader of source files made it, with nothing of anybody else's in between
    sha256: str = (
        ""  # of a source file of the project, as it was when it was imported; empty where the function wrote it itself
    )


class Executed(Record, frozen=True, tag="executed"):
    """The files whose Python code ran inside the handler."""

    files: tuple[str, ...]


class EnvironReads(Record, frozen=True, tag="environ"):
    """Environment variables that the project, or a library on its behalf, read before its state was made.

    `variables` gives digests of [value] as they were before the program began, [null] where unset. `at_init` gives those that the
    program itself had set when it called init, with marks in place of folders. `all_by` says who looked at all variables.
    """

    variables: dict[str, str]
    at_init: dict[str, str] = {}
    all_by: str = ""


class FileOpened(Record, frozen=True, tag="file"):
    """A file that the process opened or mapped. Opens by native libraries are seen only when they map the file."""

    path: str  # absolute
    given: str  # as the program wrote it; empty for a mapping
    phase: str
    size: int
    mtime_ns: int
    mapped: bool = False
    written: str | None = None  # of a file that init wrote: sha256 of what it held in the end, empty past DIGESTED
    touched: tuple[tuple[int, int], ...] = ()  # offset and length of what of a mapped file was in the page tables in the end
    sha256: str = (
        ""  # of a file of the project that is opened outside init, up to DIGESTED; empty where the function writes to it
    )


class PathAsked(Record, frozen=True, tag="path"):
    """A path that the function asked about without opening it. `found` says whether it was there, or could be listed."""

    path: str  # absolute
    given: str  # as the program wrote it
    phase: str
    kind: str  # exists, or listed
    found: bool


class SourcesRead(Record, frozen=True, tag="sources"):
    """Python files that were opened as any file is, outside init: what a package looks through while it is imported.

    Also bytecode of modules that failed, or that put another object in their place.
    """

    files: tuple[str, ...]


class FolderScan(Record, frozen=True):
    """What a cached function of a library made of the sources that it found at `path`: see import_cache.SCANS and to_plain.

    `contents` is the digest of what the folder held afterwards, as read_contents gives it.
    """

    module: str
    function: str
    path: str  # absolute
    pathlike: bool  # given as a Path, and not as a string
    made: Any
    contents: str


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
    `value` is the tape's number of the tensor that was found over it. `computed` says how its content was computed, and so may
    depend on the CPU's capability (None where it was only read, copied or filled). `call` is the place of its init's call among the
    trace's.
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
    computed: str | None = None
    call: int = 0


class InitCall(Record, frozen=True, tag="init"):
    """The first call of an init with these arguments for an event that no earlier recorded call's state serves.

    `event_reads` maps the keys that init read from the event to digests of their values.
    """

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
    skeleton: str = ""  # digest of the state's skeleton; empty where it can't be pickled
    writes: str = ""  # what of its arguments it changes, in words
    computed_read: str | None = None  # how a number was computed that init took out of a tensor
    first_event_line: int | None = None  # the line of init's own source that first led to a read of the event
    called_at: str = ""  # the file of the project and the line that called it; empty where that is none of its own


class FurtherCall(Record, frozen=True, tag="further"):
    """A call of an init that was not recorded, so that no bundle holds its state. `why` says the reason, for a person."""

    name: str
    event: int
    called_at: str
    why: str


class WeightsBuilt(Record, frozen=True, tag="built"):
    """Who makes the weights of a function that called no init: what `--init` would name, empty where it is the handler itself."""

    name: str
    file: str  # relative to the project
    line: int
    nbytes: int

    @property
    def at_import(self) -> bool:
        """Whether the name is that of statements, by their lines (`app:12-14`), and not of a function."""
        return self.name.partition(":")[2][:1].isdecimal()


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
    """One event's two calls of the handler. Their difference is the first-launch tax, instrumentation cancelling out.

    Under `--once` there is one call.
    """

    event: int
    pieces: int  # values yielded; 0 where the handler returned one
    output: str  # digest of the output's canonical JSON
    first_call_s: float
    first_piece_s: float
    second_call_s: float | None  # None under --once, and where the handler can't be called twice on one state
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
    | PathAsked
    | SourcesRead
    | ImportWork
    | EnvironReads
    | TapeRead
    | TapeStep
    | Weight
    | InitCall
    | FurtherCall
    | WeightsBuilt
    | FirstUse
    | WeightWritten
    | Kernel
    | Invocation
    | TracingCost
    | Failure
    | Closing
)
