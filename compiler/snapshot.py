"""What the snapshot child and the compiler tell each other."""

from tidalctl.artifacts.records import Function, Record
from tidalctl.artifacts.weights import Placement


class SnapshotRequest(Record, frozen=True):
    """Run the function plainly on the events; with `folder`, take the snapshot of what its init gives into it.

    `order` names the weights in access order. `ambient` are digests of the settings that the traced init left: only those that
    come out alike are kept.
    """

    function: Function
    root: str
    argv: tuple[str, ...]
    events: tuple[str, ...]
    report: str
    folder: str = ""
    order: tuple[str, ...] = ()
    shard_size: int | None = None
    ambient: dict[str, str] = {}
    generators: dict[str, str] = {}  # digests of the generators' states before the traced init
    progress: int = -1  # file descriptor


class ShardWritten(Record, frozen=True):
    file: str
    size: int
    sha256: str


class SnapshotReport(Record, frozen=True):
    """`digests` are the weights' by name. `cause` says why there is no snapshot; `differs` which event's init gave another state."""

    outputs: tuple[str, ...]
    init: str = ""
    cause: str = ""
    differs: int | None = None
    placements: tuple[Placement, ...] = ()
    names: dict[str, tuple[str, ...]] = {}
    devices: dict[str, str] = {}
    digests: dict[str, str] = {}
    shards: tuple[ShardWritten, ...] = ()
    globals: tuple[str, ...] = ()
    kept_globals: tuple[str, ...] = ()
    generators: dict[str, str] = {}
    memo: bool = False
    skeleton: str = ""  # digest of the state's skeleton, to tell whether two runs built the same
