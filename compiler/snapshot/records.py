"""What the snapshot child, the capture child and the compiler tell each other."""

from tidalctl.artifacts.bundle.manifest import LaterCalls
from tidalctl.artifacts.bundle.weights_file import Placement, ShardFile
from tidalctl.artifacts.cause import Reason
from tidalctl.artifacts.records import Function, Record
from tidalctl.artifacts.trace.records import Event

RNG = ".torch.rng"  # what init left of torch's generator lies among the weights under this name


class SnapshotRequest(Record, frozen=True):
    """Run the function plainly on the events; with `folder`, take the snapshot of what its init gives into it.

    `order` names the weights in access order, and `traced` gives their digests. `ambient` are digests of the settings that the traced
    init left: only those that come out alike are kept. Without `store` nothing is written: what init finds and changes is noted all the
    same. `outline` is a file for the outline of the first state (see structure.py). `bases` is a weights file whose
    entries take the place of those of the same name, or come besides; of `dynamic` weights nothing else is stored.
    """

    function: Function
    root: str
    argv: tuple[str, ...]
    events: tuple[Event, ...]
    report: str
    folder: str = ""
    order: tuple[str, ...] = ()
    traced: dict[str, str] = {}
    shard_size: int | None = None
    ambient: dict[str, str] = {}
    generators: dict[str, str] = {}  # digests of the generators' states before the traced init
    store: bool = True
    outline: str = ""
    bases: str = ""
    dynamic: tuple[str, ...] = ()
    progress: int = -1  # file descriptor


class SnapshotReport(Record, frozen=True):
    """`digests` are the stored weights' sha256 by name, and `xxh3` their other ones. `cause` says why there is no snapshot.

    `states` are the digests of the weights of each event's state as the plain function made it, by name. `init_s` is how long the plain
    init took.
    """

    outputs: tuple[str, ...]
    init: str = ""
    cause: Reason | None = None
    placements: tuple[Placement, ...] = ()
    names: dict[str, tuple[str, ...]] = {}
    devices: dict[str, str] = {}
    digests: dict[str, str] = {}
    xxh3: dict[str, str] = {}
    shards: tuple[ShardFile, ...] = ()
    globals: tuple[str, ...] = ()
    kept_globals: tuple[str, ...] = ()
    globals_differ: str | None = None  # one that init sets otherwise for another event
    settings: dict[str, str] = {}  # this and what follows: as in manifest.Guard
    moved: bool = False
    directory: str = ""
    assigned: dict[str, str] = {}
    generators: dict[str, str] = {}
    drawn: tuple[str, ...] = ()
    later_calls: LaterCalls = "fresh"
    init_s: float = 0.0
    states: dict[int, dict[str, str]] = {}
    skeleton: str = ""  # digest of the first state's skeleton, to tell whether two runs built the same


class CaptureRequest(Record, frozen=True):
    """Run init on the events under lineage, and write what had the identities in `wanted` into `folder`, under their names."""

    function: Function
    root: str
    argv: tuple[str, ...]
    events: tuple[Event, ...]
    wanted: dict[str, str]
    folder: str
    stem: str
    report: str
    shard_size: int | None = None
