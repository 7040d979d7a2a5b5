"""The weights of one state on their way to a device: from the files, by an engine of their own, behind gates of their own.

Each state has its own memory, so that each arrives for itself; a later one finds the files in memory.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tidalctl.artifacts.bundle.manifest import BundleWeight
from tidalctl.artifacts.bundle.weight_groups import Group
from tidalctl.artifacts.errors import COMPILE_AGAIN, Corrupt, TidalError
from tidalctl.runtime.weights.cuda import CudaDevice
from tidalctl.runtime.weights.direct_io import Reads
from tidalctl.runtime.weights.engine import Engine
from tidalctl.runtime.weights.file_mapping import WeightsFile
from tidalctl.runtime.weights.graph_capture import CaptureWatch
from tidalctl.runtime.weights.module_gate import Gate
from tidalctl.runtime.weights.operator_gate import OperatorGate


class BundleSource:
    """The bundle's files as a device's source. `fetch` returns when a group, by its index, may be read through the page cache.

    With `direct`, nobody has read or checked the files before, and the page cache is left alone where the file system can.
    """

    def __init__(self, bundle: Path, files: Mapping[str, WeightsFile], fetch: Callable[[int], None], direct: bool) -> None:
        self._bundle = bundle
        self._files = files
        self._fetch = fetch
        self.reads = {name: Reads(file, direct) for name, file in files.items()}
        self.direct = direct

    def ready(self, group: Group) -> None:
        if not self.direct:
            self._fetch(group.index)

    def read(self, file: str, begin: int, end: int, memory: memoryview) -> int:
        at = self.reads[file].read(begin, end, memory)
        if self._files[file].changed():
            raise Corrupt(f"{self._bundle}: {file} was changed while it was read", COMPILE_AGAIN)
        return at


class _DeviceEngine(Engine):
    """Is done only when the copies are, too: then nobody's stream waits any more."""

    def __init__(self, groups: Sequence[Group], device: CudaDevice, **options: Any) -> None:
        super().__init__(groups, device, **options)
        self._copies = device
        self._settled = False

    def settle(self) -> None:
        """From whoever finds that every group is in."""
        self._copies.settle()
        self._settled = True

    @property
    def done(self) -> bool:
        return self._settled and super().done

    def wait(self) -> None:
        super().wait()
        self.settle()


class DeviceArrival:
    """One state's weights on a device, asked for from the moment it is made, in the thread that computes.

    `ahead` is the engine's. Raises TidalError where a device is not there, or has no room for all of them.
    """

    def __init__(self, groups: Sequence[Group], source: BundleSource, check: bool, workers: int, ahead: int | None) -> None:
        for name in dict.fromkeys(group.device for group in groups):
            _refuse_missing(name)
        self._device = CudaDevice(groups, source, workers, hashes=check and source.direct)
        self.engine = _DeviceEngine(groups, self._device, check=check, workers=workers, ahead=ahead)
        self._places: dict[str, list[int]] = {}
        for place, group in enumerate(groups):
            for weight in group.weights:
                self._places.setdefault(weight.name, []).append(place)
        self._used = [place for place, group in enumerate(groups) if group.first_use is not None]
        self._groups: dict[int, Sequence[int]] = {}  # by a storage's address
        self._operators = OperatorGate(self.engine.need, self.engine.wait, self._groups)
        self._gate = Gate(self.engine.need, self.engine.wait)
        self._gate.on_compile = self._compiling
        self._captures = CaptureWatch(self._capturing)
        self._lock = threading.Lock()
        self._closed = False
        self.engine.on_done = self._finished
        self.on_done: Callable[[DeviceArrival], None] = lambda arrival: None  # called once, by a worker

    def start(self) -> None:
        self.engine.start()

    def storage(self, weight: BundleWeight) -> torch.UntypedStorage:
        """The weight's memory in this state, behind its gates. Ask once for each, before the gates are closed."""
        storage, groups = self._device.storage(weight), self._places[weight.name]
        self._gate.watch(storage, groups)
        self._groups[storage.data_ptr()] = groups
        return storage

    def carries(self, name: str) -> bool:
        return name in self._places

    def need(self, names: Iterable[str]) -> None:
        """What this thread launches from now on sees these weights; those that live elsewhere are left out."""
        self.engine.need(dict.fromkeys(place for name in names for place in self._places.get(name, ())))

    def need_used(self) -> None:
        """As need, of all weights that the trace saw a use of."""
        self.engine.need(self._used)

    @property
    def may_begin(self) -> bool:
        """Whether the first group that the handler uses is on its way."""
        return not self._used or self.engine.released(self._used[0])

    def watch_operators(self) -> None:
        """The state is being made, in this thread: whatever reads a weight from now on waits for it."""
        if not self.engine.done:
            self._operators.close()
            self._captures.begin()
            if self.engine.done:  # meanwhile
                self._open()

    def close_gates(self, state: Any) -> None:
        """The state is made: modules wait for what they own from now on."""
        if not self.engine.done:
            self._gate.close(state)
            if self.engine.done:  # meanwhile
                self._open()
        with self._lock:
            self._closed = True
            self._drop()

    def give_up(self) -> None:
        """There will be no state: give the memory back once nothing is copied into it any more."""
        self.engine.end()
        self.engine.settle()
        self._open()
        self._operators.leave()
        self._device.drop()

    def leave(self) -> bool:
        """Once everything is in: let nothing of this stay on this thread's path. Says whether nothing does."""
        return self._operators.leave()

    def _compiling(self) -> None:
        self._operators.open()
        self._operators.leave()

    def _capturing(self) -> None:
        self.engine.wait()
        self.engine.end()  # and no worker calls the driver

    def _finished(self) -> None:
        self.engine.settle()
        self._open()
        with self._lock:
            self._drop()
        self.on_done(self)

    def _drop(self) -> None:
        """Everything is in, and every weight has been asked for: what nobody holds of the memory is free."""
        if self._closed and self.engine.done:
            self._device.drop()

    def _open(self) -> None:
        self._gate.open()
        self._operators.open()
        self._captures.end()


def _refuse_missing(device: str) -> None:
    if (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise TidalError(
            f"the bundle's weights live on {device}; torch sees {torch.cuda.device_count()} such devices here",
            "compile the function for this machine",
        )
