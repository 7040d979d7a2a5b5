"""The manifest of a template bundle: what is in it, for which environment, and the digest that vouches for all of it.

The bundle's digest is taken over the manifest's canonical JSON without the `digest` field; the manifest in turn holds the
sha256 of every other file. What is measured, and where the project lies, is in provenance.json, which the digest leaves out.
"""

import json
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from tidalctl.artifacts.cause import Reason
from tidalctl.artifacts.errors import COMPILE_AGAIN, Corrupt, NewerSchema, NotAnArtifact, OlderSchema, PathEscapes, Truncated
from tidalctl.artifacts.records import Fingerprint, Function, Record, digest_json

SCHEMA = 14
FORMAT = "tidalctl.bundle"
PROVENANCE = "provenance.json"
SKELETON = "skeleton.pickle"
PREWARM = "prewarm.json"
DYNAMIC_INIT = "dynamic_init.py"
CODE = "code"
PACK = "code.pack"
IMPORT_CACHE = "import_cache.bin"
STRATEGIES = ("snapshot", "script", "replay", "eager")


class BundleFile(Record, frozen=True):
    size: int
    sha256: str


class BundleWeight(Record, frozen=True):
    """One weight in the shard `file`: `offset` counts from the start of the file. `first_use` is its place in the access order.

    `address` is the offset modulo 64: 0, or what the weight keeps of its address in the plain function's memory (see weights).

    `xxh3` (128 bits) is what a run checks as the weight arrives, `sha256` what can't be forged: see hashing.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    device: str
    file: str
    offset: int
    sha256: str
    xxh3: str
    address: int = 0
    first_use: int | None = None
    module: str = ""
    operator: str = ""
    written: bool = False
    folded: tuple[str, ...] = ()  # operators of init whose result is stored, so that they need not run again
    sources: tuple[str, ...] = ()


# How calls of init after the first one in a process are answered: each with a fresh state; all with the same object, as one of
# functools' caches gives it; or by init itself, which finds parts of its state in globals or class attributes that it has left.
LaterCalls = Literal["fresh", "same", "run_init"]


class AddedItems(Record, frozen=True):
    """Items that init adds to a dictionary in a global: digests of their keys, and of the list of keys that it held before."""

    module: str
    owner: str
    name: str
    keys: tuple[str, ...]
    before: str


class Guard(Record, frozen=True):
    """What init saw of the event and of the process. The snapshot answers calls that agree; the rest runs init the ordinary way."""

    static: bool
    event_reads: dict[str, str] = {}
    event_whole: str = ""  # digest of the whole event, where init may have looked at all of it
    arguments: str = ""  # digest of the further arguments of init
    environ: dict[str, str] = {}  # digests of [value] of environment variables that init may hang on, before the program begins
    environ_at_init: dict[str, str] = {}  # of those of them that the program itself sets before init, as they are then
    may_be_unset: tuple[str, ...] = ()  # of the latter, those that it sets from a file that is left out
    left_out: dict[str, str] = {}  # sha256 of the project's files that were read and are not shipped, by their path in it
    argv: str = ""  # digest of the command line's arguments for the function: see tidalctl.function.command_line
    settings: dict[str, str] = {}  # of torch, before init, in words
    moved: bool = False  # the function changes its working directory before init
    directory: str = ""  # where it is then, "project:" and a path; empty where that is outside of the project
    assigned: dict[str, str] = {}  # digests of [value] of the environment variables that it sets before init
    generators: dict[str, str] = {}  # digests of random generators before init, of those that it draws from as it finds them
    drawn: tuple[str, ...] = ()  # the others that it draws from: nobody had seeded them, and nobody may have
    later_calls: LaterCalls = "fresh"
    after: tuple[int, ...] = ()  # states that must have been made before, since this one holds objects of theirs
    # init sets more than items of dictionaries: other globals, settings, variables; or it imports modules
    leaves_more: bool = False
    # the states that leave more, which must have been made before, in this order, and no other; None where it makes no difference
    order: tuple[int, ...] | None = None
    # keys that must not be there yet; the others must be as they were, unless init is static
    items: tuple[AddedItems, ...] = ()
    computed: str | None = None  # the first part of the state that init computed: the CPU's capability must then be the trace's


class HeldState(Record, frozen=True):
    """A state that the bundle holds: what an init gives when it is called with certain arguments.

    Attributes:
        number: 0 for the main state; the others' are in the order of the traced calls, and some may be missing.
        init: The qualified name of the init.
        guard: What a call and its process must agree in. Of the main state alone it may name fields of the event.
    """

    number: int
    init: str
    guard: Guard


def skeleton_file(number: int) -> str:
    """Return the name of the file that holds a state's skeleton."""
    return f"skeleton.{number}.pickle" if number else SKELETON


def state_prefix(number: int, init: str) -> str:
    """Return how the names of a state's weights begin, so that each names one weight of the bundle: `load#1/`, say."""
    return f"{init.rpartition(':')[2]}#{number}/" if number else ""


_PREFIX = re.compile(r"[^/#]+#[0-9]+/")


def prefix_in(name: str) -> str:
    """Return the state's prefix in the name of a weight, which is empty for the main state's."""
    found = _PREFIX.match(name)
    return found[0] if found else ""


class Answer(Record, frozen=True):
    """A tensor that a replayed init reads from the bundle's entry `weight` instead of from `key` of `file`.

    It holds while the file has the size and modification time in the provenance. `file` is absolute, or begins with `project:`.
    """

    weight: str
    file: str
    key: str
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class NeededFile(Record, frozen=True):
    """A file that the traced function opened and that the bundle does not hold.

    Attributes:
        file: Absolute, below `~/`, or a path in the project after `project:`.
        phase: When it was opened: import, init or handler.
        optional: The function may do without it, or look elsewhere: it asked first whether the file is there, or the path lies below
            the user's own folder or holds a text of the event.
    """

    file: str
    phase: str
    optional: bool


class Fallback(Record, frozen=True):
    """A part that is done the plain way, and why: the text of the cause in this case, and the code of the `Cause`."""

    part: str
    strategy: str
    cause: str
    code: str

    @classmethod
    def of(cls, part: str, strategy: str, reason: Reason) -> "Fallback":
        return cls(part=part, strategy=strategy, cause=reason.text, code=reason.code)

    def __str__(self) -> str:
        return f"{self.part}: {self.strategy}; cause: {self.cause} ({self.code})"


class Manifest(Record, frozen=True):
    """`modules` are what the traced process imported, in order; `readahead` names files relative to a sys.path entry.

    `globals` are the only names that unpickling a skeleton may resolve. `init` is the qualified name of the function whose
    result the main state is; `further` are states of other calls. `strategy` is how the main state is made: `snapshot`; `script`, a
    snapshot whose dynamic weights dynamic_init.py makes; `replay`, init itself, with its reads of static tensors answered from the
    weights; or `eager`, init as it is.
    """

    schema: int
    tidalctl: str
    function: Function
    init: str
    strategy: str
    guard: Guard
    fingerprint: Fingerprint
    events: tuple[str, ...]
    reproducible: bool
    files: dict[str, BundleFile]
    weights: tuple[BundleWeight, ...]
    globals: tuple[str, ...]
    modules: tuple[str, ...]
    readahead: tuple[str, ...]
    fallbacks: tuple[Fallback, ...] = ()
    dynamic: tuple[
        str, ...
    ] = ()  # weights of the state that the dynamic init makes; entries of these names hold what it starts from
    answers: tuple[Answer, ...] = ()
    further: tuple[HeldState, ...] = ()
    needs: tuple[NeededFile, ...] = ()
    environ_reads: tuple[str, ...] = ()  # environment variables that were read before the handler, whatever the strategy
    environ_all: bool = False  # something looked at all of them, and nobody has said which ones matter
    pack: str = ""  # digest of what stands before the code pack's first segment; empty where there is no pack
    format: str = FORMAT
    digest: str = ""

    @property
    def import_variables(self) -> frozenset[str]:
        """Environment variables that imports may have read: whoever has imported the function serves those who have them the same."""
        return frozenset((*self.environ_reads, *(name for state in self.held for name in state.guard.environ)))

    @property
    def held(self) -> tuple[HeldState, ...]:
        """The states that the bundle holds, the main one first. Of an eager bundle that one is held in name alone."""
        return (HeldState(0, self.init, self.guard), *self.further)


def seal(manifest: Manifest) -> Manifest:
    """The same manifest with the digest over the rest of it."""
    body = msgspec.to_builtins(manifest)
    body.pop("digest", None)
    return msgspec.structs.replace(manifest, digest=digest_json(body))


def encode_manifest(manifest: Manifest) -> bytes:
    return json.dumps(msgspec.to_builtins(manifest), sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"


def decode_manifest(data: bytes, where: Path) -> Manifest:
    """Parse and check a manifest: schema, its own digest, types, and that no path leads out of the bundle.

    Raises NotAnArtifact, Truncated, OlderSchema, NewerSchema, Corrupt or PathEscapes.
    """
    if not data.strip():
        raise Truncated(f"{where} is empty", COMPILE_AGAIN)
    try:
        body: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{where} is not JSON: {error}", COMPILE_AGAIN) from None
    if not isinstance(body, dict) or body.get("format", FORMAT) != FORMAT:
        raise NotAnArtifact(f"{where} is not the manifest of a bundle", "make one: tidalctl compile app.trace")
    schema = body.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerSchema(f"{where} has bundle schema {schema}; this tidalctl reads {SCHEMA}", "upgrade tidalctl")
    if isinstance(schema, int) and schema < SCHEMA:
        raise OlderSchema(f"{where} has bundle schema {schema}; this tidalctl reads {SCHEMA}", COMPILE_AGAIN)
    stated = body.pop("digest", "")
    try:
        computed = digest_json(body)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{where} holds a value that no manifest has: {error}", COMPILE_AGAIN) from None
    if stated != computed:
        raise Corrupt(f"{where} is not what compile wrote (its digest differs)", COMPILE_AGAIN)
    try:
        manifest = msgspec.convert({**body, "digest": stated}, Manifest)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Corrupt(f"{where} does not fit the schema: {error}", COMPILE_AGAIN) from None
    _check_paths(manifest, where)
    return manifest


def _check_paths(manifest: Manifest, where: Path) -> None:
    for name in (*manifest.files, manifest.function.source, *manifest.readahead):
        if "\\" in name or "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):  # an absolute one begins with ""
            raise PathEscapes(f"{where} names {name!r}, which leads out of the bundle", COMPILE_AGAIN)
    if len({weight.name for weight in manifest.weights}) != len(manifest.weights):
        raise Corrupt(f"{where} lists two weights of one name", COMPILE_AGAIN)
    for weight in manifest.weights:
        stored = manifest.files.get(weight.file)
        if stored is None:
            raise Corrupt(
                f"{where}: weight {weight.name} lies in {weight.file!r}, which the bundle does not hold", COMPILE_AGAIN
            )
        if weight.offset < 0 or weight.nbytes < 0 or weight.offset + weight.nbytes > stored.size:
            raise Corrupt(f"{where}: weight {weight.name} reaches past the end of {weight.file}", COMPILE_AGAIN)
    if manifest.strategy not in STRATEGIES:
        raise Corrupt(f"{where} names a strategy that this tidalctl does not know: {manifest.strategy!r}", "upgrade tidalctl")
    needed = {SKELETON, DYNAMIC_INIT} if manifest.strategy in ("snapshot", "script") else {DYNAMIC_INIT}
    needed |= {skeleton_file(state.number) for state in manifest.further}
    if manifest.pack:
        needed.add(PACK)
    names = {weight.name for weight in manifest.weights}
    for answer in manifest.answers:
        if answer.weight not in names:
            raise Corrupt(f"{where} answers with a weight that it does not list: {answer.weight}", COMPILE_AGAIN)
    for name in sorted(needed - manifest.files.keys()):
        raise Corrupt(f"{where} lists no {name}", COMPILE_AGAIN)
