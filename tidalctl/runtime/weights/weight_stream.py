"""A bundle's weights, streamed: what a template asks for a mapping, for a weight's memory, and whether all of it is right."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tidalctl.artifacts.bundle.directory import check_file
from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.artifacts.bundle.weight_groups import GROUP_SIZE, Group, plan_groups
from tidalctl.artifacts.errors import COMPILE_AGAIN, Corrupt, TidalError, Truncated
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.weights.direct_io import too_large_to_cache
from tidalctl.runtime.weights.engine import WORKERS, Engine
from tidalctl.runtime.weights.file_mapping import PrivateMapping
from tidalctl.runtime.weights.mapped import MappedDevice

if TYPE_CHECKING:
    import torch

    from tidalctl.runtime.weights.device_arrival import BundleSource, DeviceArrival
    from tidalctl.runtime.weights.module_gate import Gate
    from tidalctl.runtime.weights.unowned_weights import UnownedWeightsGate

MOST_WORKERS = 8  # what a device's link is fed by; a core copies and hashes more slowly than it takes


class StreamOptions(msgspec.Struct, frozen=True):
    """How weights are brought in. `verify`: each group as it arrives, all files before the start, or not at all.

    `ahead`: bytes that are read beyond what was needed so far (None: no bound). `io`: how weights for a device are read, through the
    page cache or past it; "auto" goes past it where it could not keep them. `held`: nothing is read before `begin` is called.
    """

    verify: str = "stream"
    ahead: int | None = None
    io: str = "auto"
    group_size: int = GROUP_SIZE
    held: bool = False


class WeightStream:
    """Begins to read when it is made, unless it is held.

    `need` returns when weights are there and right, `wait` when all are; both raise what is not.

    Weights for a device are read and checked here like all others, from before anybody has imported torch. Each state's arrive on
    the device by an engine of their own (see arrival), to which those that are read past the page cache are left altogether.

    Where weights have to be read, readers wait for `turn` first.
    """

    def __init__(
        self,
        bundle: Path,
        manifest: Manifest,
        options: StreamOptions,
        timeline: Timeline,
        turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._bundle = bundle
        self._manifest = manifest
        self._timeline = timeline
        self.options = options
        files = dict.fromkeys(weight.file for weight in manifest.weights)
        self.device = MappedDevice(bundle, files, turn)
        self._refuse_other_sizes()
        self.bytes = sum(file.size for file in self.device.files.values())
        self.groups = plan_groups(manifest.weights, options.group_size)
        self._places: dict[str, list[int]] = {}
        for group in self.groups:
            for weight in group.weights:
                self._places.setdefault(weight.name, []).append(group.index)
        self._used = [group.index for group in self.groups if group.first_use is not None]
        self._mappings_taken = False
        self._gate: Gate | None = None
        self._unowned: UnownedWeightsGate | None = None
        self.on_device = tuple(group for group in self.groups if group.device.partition(":")[0] == "cuda")
        carried = sum(group.nbytes for group in self.on_device)
        past_cache = options.io == "direct" or (
            options.io == "auto" and carried and too_large_to_cache(min(carried, self.bytes - self.device.resident()))
        )
        self.direct = bool(past_cache and self.on_device)
        self._workers = max(WORKERS, min(MOST_WORKERS, (os.cpu_count() or 2) // 2)) if self.on_device else WORKERS
        self._source: BundleSource | None = None
        self._making: DeviceArrival | None = None  # of the state that is being made
        self._ready: DeviceArrival | None = None  # of the state that is to be made next
        self._made: list[DeviceArrival] = []  # of states that may still have gates on the path
        self._arriving: list[DeviceArrival] = []
        self._misses = 0  # of arrivals that are over
        self.stalled_ns = 0  # that compute waited
        self.asked: set[str] = set()  # weights on the CPU of which a state was made
        if options.verify == "full":
            with timeline.span("check"):
                for name in files:
                    check_file(bundle, manifest, name)
        self.engine = Engine(
            self.groups,
            self.device,
            check=options.verify == "stream",
            ahead=options.ahead,
            workers=self._workers,
            elsewhere=frozenset(group.index for group in self.on_device) if self.direct else (),
        )
        self.engine.on_done = self._finished
        self.engine.on_span = timeline.add
        self.engine.on_stall = self._stalled
        if not options.held:
            self.begin()

    def begin(self, checked: int = 0) -> None:
        """Begin to read. Somebody else has read and checked the first groups, as many as are `checked`."""
        self._timeline.mark("weights asked for")
        self.engine.start(checked)

    def _refuse_other_sizes(self) -> None:
        for name, file in self.device.files.items():
            expected = self._manifest.files[name].size
            if file.size < expected:
                raise Truncated(f"{self._bundle}: {name} has {file.size} of {expected} bytes", COMPILE_AGAIN)
            if file.size > expected:
                raise Corrupt(f"{self._bundle}: {name} is longer than compile wrote it", COMPILE_AGAIN)

    def mappings(self, *, again: bool) -> dict[str, PrivateMapping]:
        """The files' private mappings: those that are read into, once, or fresh ones in which nothing has been written."""
        if again:
            return self.device.map_again()
        found, self._mappings_taken = self.device.mappings, True
        self._drop_mappings()
        return found

    def _drop_mappings(self) -> None:
        """Leave the first mappings to the state that has taken them, once all is read and checked."""
        if self._mappings_taken and self.engine.done and not self.direct:
            self.device.mappings = {}

    @property
    def asked_bytes(self) -> int:
        """Bytes of the weights of which states were made."""
        return sum(weight.nbytes for weight in self._manifest.weights if weight.name in self.asked)

    def _asked_groups(self) -> list[int]:
        """Return the groups of which a state was made, those on a device included."""
        on_device = {group.index for group in self.on_device}
        return [
            group.index
            for group in self.groups
            if group.index in on_device or any(weight.name in self.asked for weight in group.weights)
        ]

    def prefer_asked(self) -> None:
        """Read what the states that were made so far consist of before all that a state of another call would."""
        self.engine.prefer(self._asked_groups())

    def need(self, names: Iterable[str]) -> None:
        """Return when these weights may be read from the mappings."""
        wanted = dict.fromkeys(index for name in names for index in self._places.get(name, ()))
        self.engine.need(wanted)
        if self.direct:
            for group in (group for group in self.on_device if group.index in wanted):
                self.device.bring(group)
                if self.options.verify == "stream":
                    self.device.check(group)

    # -- what lives on a device

    def attach(self) -> "DeviceArrival | None":
        """A state is being made, in this thread: its weights set out for the device, where the bundle has some for one.

        Raises TidalError where there is no room for them, whichever of them the state then has.
        """
        if self.on_device:
            self._making, self._ready = self._ready or self._set_out(), None
            self._making.watch_operators()
        return self._making

    def make_ready(self) -> None:
        """Have the next state's weights on the device before it is asked for. From the thread that will ask."""
        if self.on_device and self._ready is None:
            arrival = self._set_out()
            try:
                arrival.engine.wait()
            except (OSError, TidalError):
                self._give_up(arrival)
                raise
            self._ready = arrival

    @contextlib.contextmanager
    def kept_if_made(self) -> Iterator[None]:
        """Around the making of a state: where that fails, its memory on the device is free again."""
        try:
            yield
        except Exception:  # raised again
            making, self._making = self._making, None
            if making is not None:
                self._give_up(making)
            raise

    def _give_up(self, arrival: "DeviceArrival") -> None:
        arrival.give_up()
        if arrival in self._arriving:  # something was wrong with it, which is nobody's concern any more
            self._arriving.remove(arrival)

    def _set_out(self) -> "DeviceArrival":
        from tidalctl.runtime.weights.device_arrival import DeviceArrival

        options = self.options
        check = options.verify == "stream"
        arrival = DeviceArrival(self.on_device, self._read_by(), check, self._workers, options.ahead)
        arrival.on_done = self._arrived
        arrival.engine.on_span = lambda name, begin, end: self._timeline.add("copy weights", begin, end)
        arrival.engine.on_stall = self._stalled
        self._arriving.append(arrival)
        self._timeline.mark("device asked for")
        arrival.start()
        return arrival

    def _read_by(self) -> "BundleSource":
        if self._source is None:
            from tidalctl.runtime.weights.device_arrival import BundleSource

            self._source = BundleSource(self._bundle, self.device.files, self.engine.fetch, self.direct)
        return self._source

    def _arrived(self, arrival: "DeviceArrival") -> None:
        self._timeline.mark("weights on the device")
        self._misses += arrival.engine.misses
        self._arriving.remove(arrival)

    # -- gates

    def watch(self, name: str, storage: "torch.UntypedStorage") -> None:
        """This storage is over the weight's memory, and whoever owns it will wait for it."""
        if self.engine.done:
            return
        if self._gate is None:
            from tidalctl.runtime.weights.module_gate import Gate

            self._gate = Gate(self.engine.need, self.engine.wait)
            self._gate.on_compile = self._open
        self._gate.watch(storage, self._places.get(name, []))

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the handler, or ask for its next piece. Meanwhile operators may wait for weights that no module owns."""
        if self.engine.done or "torch" not in sys.modules:
            return function(*arguments)
        if self._unowned is None:
            from tidalctl.runtime.weights.unowned_weights import UnownedWeightsGate

            self._unowned = UnownedWeightsGate(self.engine.need, self.engine.wait)
        with self._unowned.call():
            return function(*arguments)

    def close_gate(self, state: Any) -> None:
        """The state is made: modules wait for what they own from now on, and operators for the rest; see gate and unowned."""
        if self._making is not None:
            self._making.close_gates(state)
            self._made.append(self._making)
            self._making = None
        if self._gate is not None and not self.engine.done:
            self._gate.close(state, self._unowned.hold if self._unowned is not None else None)
            if self.engine.done:  # meanwhile
                self._open()

    def _finished(self) -> None:
        self._timeline.mark("weights read")
        self._drop_mappings()
        self._open()

    def _open(self) -> None:
        if self._gate is not None:
            self._gate.open()
        if self._unowned is not None:
            self._unowned.open()

    def _stalled(self, group: Group, begin_ns: int, end_ns: int) -> None:
        first = group.weights[0]
        self.stalled_ns += end_ns - begin_ns
        self._timeline.add("wait", begin_ns, end_ns)
        self._timeline.add_stall(first.name, first.module, begin_ns, end_ns)

    @property
    def may_begin(self) -> bool:
        """Whether the first group that the handler uses is there, and on its way to the device where it lives on one."""
        if self._making is not None and not self._making.may_begin:
            return False
        return not self._used or self.engine.released(self._used[0])

    @property
    def done(self) -> bool:
        """Whether every weight is in and right, of every state."""
        return self.engine.done and not self._arriving

    @property
    def io(self) -> str:
        """Which way the bytes came: from the page cache, where they were already, read into it, or past it."""
        if self.direct and self._source is not None:
            return "direct" if all(reads.direct for reads in self._source.reads.values()) else "read"
        return "page cache" if self.streamed == 0 else "read"

    def refuse_wrong(self) -> None:
        """Before output leaves: every weight that the trace saw a use of is there and right, and no file was written to since.

        Of a bundle that holds several states it is those of the states that were made.
        """
        used = self._used
        if self._manifest.further and self.asked:
            asked = {*self._asked_groups()}
            used = [index for index in used if index in asked]
        self.engine.need(used)
        for arrival in list(self._arriving):
            arrival.need_used()
        self._made = [arrival for arrival in self._made if not arrival.leave()]
        self.device.refuse_changed()

    def wait(self) -> None:
        """Return when every weight is in memory and its digest is the manifest's. Raises what is wrong, each time."""
        self.engine.wait()
        for arrival in list(self._arriving):
            arrival.engine.wait()
        self.device.refuse_changed()

    @property
    def misses(self) -> int:
        """Weights' groups that were asked for before they were there, and that the trace saw no use of."""
        return self.engine.misses + self._misses + sum(arrival.engine.misses for arrival in self._arriving)

    @property
    def streamed(self) -> int:
        """Bytes that were not in memory before and had to be read."""
        return self.device.streamed
