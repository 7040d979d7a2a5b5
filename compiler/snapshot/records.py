"""What the snapshot child, the capture child and the compiler tell each other."""

from tidalctl.artifacts.bundle.manifest import AddedItems, LaterCalls
from tidalctl.artifacts.bundle.weights_file import Placement, ShardFile
from tidalctl.artifacts.cause import Reason
from tidalctl.artifacts.records import Function, Record
from tidalctl.artifacts.trace.records import Event

RNG = ".torch.rng"  # what init left of torch's generator lies among the state's weights under this name


def is_generator(name: str) -> bool:
    """Whether an entry of a weights file is the state of a random generator, and no weight."""
    return name.rpartition("/")[2] == RNG


class StateRequest(Record, frozen=True):
    """A state that is wanted: what `init` (empty: any) gives in its first call with arguments of this digest (empty: with any).

    `number` is as in compiler.states. `ambient` are digests of the settings that the traced call left: only those that come out alike
    are kept. `generators` are digests of the random generators before it. Without `store` nothing is written: what init finds and
    changes is noted all the same.
    """

    number: int = 0
    init: str = ""
    arguments: str = ""
    ambient: dict[str, str] = {}
    generators: dict[str, str] = {}
    store: bool = True


class StoredContent(Record, frozen=True):
    """A weight that an earlier process has stored: its sha256, its device, and what it keeps of its address."""

    name: str
    digest: str
    device: str
    address: int


class SnapshotRequest(Record, frozen=True):
    """Run the function plainly on the events; with `folder`, take the snapshot of those of `states` into it that are `wanted`.

    `order` names the weights in access order. `outline` is a file for the outline of the main state (see structure.py). `bases` is a
    weights file whose entries take the place of those of the same name in the main state, or come besides; of `dynamic` weights nothing
    else is stored.
    """

    function: Function
    root: str
    argv: tuple[str, ...]
    events: tuple[Event, ...]
    report: str
    folder: str = ""
    states: tuple[StateRequest, ...] = ()
    wanted: tuple[int, ...] = ()
    stored: tuple[StoredContent, ...] = ()
    order: tuple[str, ...] = ()
    shard_size: int | None = None
    outline: str = ""
    bases: str = ""
    dynamic: tuple[str, ...] = ()
    progress: int = -1  # file descriptor


class StateReport(Record, frozen=True):
    """One state. `digests` are the stored weights' sha256 by name, and `xxh3` their other ones. `cause` says why there is no snapshot.

    `shares` maps names of weights of which a state before it has stored the content to the names that it has stored them under. `init`
    is empty where nobody called for the state.
    """

    init: str = ""
    cause: Reason | None = None
    placements: tuple[Placement, ...] = ()
    shares: dict[str, str] = {}
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
    environ_at_init: dict[str, str] = {}  # digests of all variables that were set since the process began
    generators: dict[str, str] = {}
    drawn: tuple[str, ...] = ()
    later_calls: LaterCalls = "fresh"
    after: tuple[int, ...] = ()
    before: tuple[int, ...] = ()  # states that were asked for before it in its process, in order
    added: tuple[AddedItems, ...] = ()
    leaves_more: bool = False  # init has set something besides: other globals, settings, variables; or it has imported modules
    skeleton: str = ""  # digest of the state's skeleton, to tell whether two runs built the same


class SnapshotReport(StateReport, frozen=True):
    """The main state, the others by number, and the process.

    `states` are the digests of the weights of each event's states as the plain function made them, by name. `alone` are the answers to
    events in processes that answered no other, which have places of their own in `states_alone`. `init_s` is how long the main state
    took.
    """

    outputs: tuple[str, ...] = ()
    further: dict[int, StateReport] = {}
    states: dict[int, dict[str, str]] = {}
    alone: dict[int, str] = {}
    states_alone: dict[int, dict[str, str]] = {}
    init_s: float = 0.0


class CaptureRequest(Record, frozen=True):
    """Run `init` on the events under lineage, and write what had the identities in `wanted` into `folder`, under their names."""

    function: Function
    init: str
    root: str
    argv: tuple[str, ...]
    events: tuple[Event, ...]
    wanted: dict[str, str]
    folder: str
    stem: str
    report: str
    shard_size: int | None = None
