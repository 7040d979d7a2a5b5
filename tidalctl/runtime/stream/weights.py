"""A bundle's weights, streamed: what a template asks for a mapping, for a weight's memory, and whether all of it is right."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tidalctl.artifacts.bundle import check_file
from tidalctl.artifacts.errors import Corrupt, Truncated
from tidalctl.artifacts.groups import GROUP_SIZE, Group, plan_groups
from tidalctl.artifacts.manifest import Manifest
from tidalctl.runtime.mapping import PrivateMapping
from tidalctl.runtime.stream.engine import Engine
from tidalctl.runtime.stream.mapped import AGAIN, MappedDevice
from tidalctl.runtime.timeline import Timeline

if TYPE_CHECKING:
    import torch

    from tidalctl.runtime.stream.gate import Gate

VERIFY = ("stream", "full", "off")


class StreamOptions(msgspec.Struct, frozen=True):
    """How weights are brought in. `verify`: each group as it arrives, all files before the start, or not at all.

    `ahead`: bytes that are read beyond what was needed so far (None: no bound). The rest is for measurements: `pace` of the link in
    bytes a second, `resident` bytes that are there from the start, `order` of the groups ("access", "default": by the weights' names,
    or "reversed"), and whether a needed group may `jump` the queue.
    """

    verify: str = "stream"
    ahead: int | None = None
    pace: float | None = None
    resident: int = 0
    order: str = "access"
    jump: bool = True
    group_size: int = GROUP_SIZE


class WeightStream:
    """Begins to read when it is made. `need` returns when weights are there and right, `wait` when all are; both raise what is not."""

    def __init__(self, bundle: Path, manifest: Manifest, options: StreamOptions, timeline: Timeline) -> None:
        self._bundle = bundle
        self._manifest = manifest
        self._timeline = timeline
        self.options = options
        files = dict.fromkeys(weight.file for weight in manifest.weights)
        self.device = MappedDevice(bundle, files)
        self._refuse_other_sizes()
        self.bytes = sum(file.size for file in self.device.files.values())
        self.groups = plan_groups(manifest.weights, options.group_size)
        self._places: dict[str, list[int]] = {}
        for group in self.groups:
            for weight in group.weights:
                self._places.setdefault(weight.name, []).append(group.index)
        self._used = [group.index for group in self.groups if group.first_use is not None]
        self._gate: Gate | None = None
        self.resident_before = self.device.resident()
        if options.verify == "full":
            with timeline.span("check"):
                for name in files:
                    check_file(bundle, manifest, name)
        self.engine = Engine(
            self.groups,
            self.device,
            check=options.verify == "stream",
            ahead=options.ahead,
            pace=options.pace,
            resident=options.resident,
            order=self._order(),
            jump=options.jump,
        )
        self.engine.on_done = self._finished
        self.engine.on_span = timeline.add
        self.engine.on_stall = self._stalled
        timeline.mark("weights asked for")
        self.engine.start()

    def _refuse_other_sizes(self) -> None:
        for name, file in self.device.files.items():
            expected = self._manifest.files[name].size
            if file.size < expected:
                raise Truncated(f"{self._bundle}: {name} has {file.size} of {expected} bytes", AGAIN)
            if file.size > expected:
                raise Corrupt(f"{self._bundle}: {name} is longer than compile wrote it", AGAIN)

    def _order(self) -> list[int] | None:
        if self.options.order == "reversed":
            return [group.index for group in reversed(self.groups)]
        if self.options.order == "default":
            return sorted(range(len(self.groups)), key=lambda index: min(weight.name for weight in self.groups[index].weights))
        return None

    def mappings(self, *, again: bool) -> dict[str, PrivateMapping]:
        """The files' private mappings: those that are read into, or fresh ones in which nothing has been written."""
        return self.device.map_again() if again else self.device.mappings

    def need(self, names: Iterable[str]) -> None:
        """Return when these weights may be read."""
        self.engine.need(dict.fromkeys(index for name in names for index in self._places.get(name, ())))

    def watch(self, name: str, storage: "torch.UntypedStorage") -> None:
        """This storage is over the weight's memory, and whoever owns it will wait for it."""
        if self.engine.done:
            return
        if self._gate is None:
            from tidalctl.runtime.stream.gate import Gate

            self._gate = Gate(self.engine.need)
        self._gate.watch(storage, self._places.get(name, []))

    def close_gate(self, state: Any) -> None:
        """The state is made: modules wait for what they own from now on, and what none of them owns is waited for here."""
        if self._gate is not None and not self.engine.done:
            self._gate.close(state)
            if self.engine.done:  # meanwhile
                self._gate.open()

    def _finished(self) -> None:
        self._timeline.mark("weights read")
        if self._gate is not None:
            self._gate.open()

    def _stalled(self, group: Group, begin_ns: int, end_ns: int) -> None:
        first = group.weights[0]
        self._timeline.add("wait", begin_ns, end_ns)
        self._timeline.add_stall(first.name, first.module, begin_ns, end_ns)

    @property
    def may_begin(self) -> bool:
        """Whether the first group that the handler uses is there."""
        return not self._used or self.engine.released(self._used[0])

    @property
    def io(self) -> str:
        """Which way the bytes came: from the page cache, or read ahead, by the kernel or by reads of ours."""
        if self.streamed == 0:
            return "page cache"
        return "populate" if self.device.populates else "read"

    def refuse_wrong(self) -> None:
        """Before output leaves: every weight that the trace saw a use of is there and right, and no file was written to since."""
        self.engine.need(self._used)
        self.device.refuse_changed()

    def wait(self) -> None:
        """Return when every weight is in memory and its digest is the manifest's. Raises what is wrong, each time."""
        self.engine.wait()
        self.device.refuse_changed()

    @property
    def streamed(self) -> int:
        """Bytes that were not in memory before and had to be read."""
        return self.bytes - self.resident_before
