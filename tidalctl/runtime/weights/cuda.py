"""The device of CUDA: weights go through pinned staging buffers, on one copy stream, into slabs of the device's memory.

A slab is one allocation for many weights, in which each begins where torch's own allocator could have put it. A group's bytes are
read into a buffer of a small ring, copied from there while the next ones are read, and marked with an event; compute streams wait
for the event on the device. A reader waits only for a buffer's last copy before it fills the buffer again, and once for all at the end.

Limits: memory of a slab is given back when the last of its weights is gone. `Tensor.record_stream` and sharing with other
processes know a slab but no weight in it. A CUDA graph that is captured while weights arrive waits for all of them first (see capture).
"""

import contextlib
import ctypes
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch

from tidalctl.artifacts.bundle.manifest import BundleWeight
from tidalctl.artifacts.bundle.weight_groups import Group
from tidalctl.artifacts.errors import COMPILE_AGAIN, Corrupt, TidalError
from tidalctl.artifacts.hashing import weight_hasher
from tidalctl.runtime.weights.direct_io import BLOCK

ALIGNMENT = 512  # of torch's own allocations: libraries choose kernels by it, and answers must not differ
SLAB = 2**30  # bytes: few enough allocations to cost nothing, small enough that a state can be given back in parts
BUFFER = 8 * 2**20  # bytes of a staging buffer: long enough for a link's full speed, and quickly pinned
STAGE = BUFFER - 2 * BLOCK  # of them, what a read may ask for
SPARE = 4  # buffers that are copied from while each worker fills its own


class Place(NamedTuple):
    """Where a weight lies: the slab's number, and bytes from its start."""

    slab: int
    begin: int


class Move(NamedTuple):
    """Bytes `begin` to `end` of a weights file, which lie in one piece at `place` too."""

    begin: int
    end: int
    place: Place


class SlabSize(NamedTuple):
    device: str
    nbytes: int


def place_weights(groups: Sequence[Group], size: int = SLAB) -> tuple[dict[str, Place], list[SlabSize]]:
    """A place for every weight, by name, in slabs of at most `size` bytes, or of one larger weight. In the order of the groups."""
    places: dict[str, Place] = {}
    slabs: list[SlabSize] = []
    open_slabs: dict[str, int] = {}  # by device, the one that is being filled
    for group in groups:
        for weight in group.weights:
            number = open_slabs.get(group.device, -1)
            begin = -(-slabs[number].nbytes // ALIGNMENT) * ALIGNMENT if number >= 0 else 0
            if number < 0 or begin + weight.nbytes > size:
                number, begin = len(slabs), 0
                slabs.append(SlabSize(group.device, 0))
                open_slabs[group.device] = number
            places[weight.name] = Place(number, begin)
            slabs[number] = SlabSize(group.device, begin + weight.nbytes)
    return places, slabs


def moves_of(group: Group, places: Mapping[str, Place]) -> list[Move]:
    """What must be copied for a group. Neighbours that are as far apart in the slab as in the file, and only those, go together."""
    moves: list[Move] = []
    for weight in group.weights:
        end, place = weight.offset + weight.nbytes, places[weight.name]
        if moves:
            last = moves[-1]
            apart = weight.offset - last.begin
            if last.place == Place(place.slab, place.begin - apart) and last.end <= weight.offset:
                moves[-1] = Move(last.begin, end, last.place)
                continue
        moves.append(Move(weight.offset, end, place))
    return moves


def steps(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The range in as few parts as buffers take, of about one length, since a short copy costs nearly as much as a long one."""
    parts = -(-(end - begin) // STAGE)
    length = -(-(end - begin) // parts // BLOCK) * BLOCK
    for low in range(begin, end, length):
        yield low, min(low + length, end)


class Source(Protocol):
    """Where a device's bytes come from. Calls come from many threads."""

    def ready(self, group: Group) -> None:
        """Return when the group may be read. Raises what is wrong with it."""

    def read(self, file: str, begin: int, end: int, memory: memoryview) -> int:
        """Put bytes of a file into memory; returns where in it they begin (see direct.Reads)."""


class _Buffer:
    """A pinned staging buffer, and the copy that last read it."""

    def __init__(self) -> None:
        self.bytes = pin(BUFFER)
        self.memory = view_of(self.bytes)
        self.copied: torch.cuda.Event | None = None


class CudaDevice:
    """Slabs for all weights of `groups`, allocated here: make it in the thread that computes. Raises TidalError for want of memory.

    With `hashes`, bytes are hashed on their way, for a source that nobody has checked before.
    """

    def __init__(self, groups: Sequence[Group], source: Source, workers: int, hashes: bool) -> None:
        self._source = source
        self._hashes = hashes
        self._places, sizes = place_weights(groups)
        self._slabs = _allocate_all(sizes)
        self._streams: dict[str, torch.cuda.Stream] = {}
        for device in dict.fromkeys(size.device for size in sizes):
            self._streams[device] = torch.cuda.Stream(device)
            # the allocator may give memory that kernels of this stream still read
            self._streams[device].wait_stream(torch.cuda.current_stream(device))
        self._ring: queue.SimpleQueue[_Buffer | None] = queue.SimpleQueue()  # None: a buffer that isn't made yet
        for _ in range(workers + SPARE):
            self._ring.put(None)
        self._lock = threading.Lock()
        self._events: dict[int, tuple[int, torch.cuda.Event]] = {}  # by group: its turn on the copy stream, and its event
        self._waited: dict[tuple[str, int], int] = {}  # by device and compute stream: the turn that it waited for last
        self._digests: dict[str, str] = {}

    def storage(self, weight: BundleWeight) -> torch.UntypedStorage:
        """The weight's part of its slab as a storage of its own, which keeps the slab: DLPack is the public way to such a one."""
        slab, begin = self._places[weight.name]
        with torch._C.DisableTorchFunction():  # the slab has the address of its first weight, for which gates would wait
            part = self._slabs[slab][begin : begin + weight.nbytes]
        return torch.from_dlpack(torch.utils.dlpack.to_dlpack(part)).untyped_storage()  # type: ignore[attr-defined]

    def bring(self, group: Group) -> None:
        """Have the group copied. Returns when its copies are on the stream."""
        self._source.ready(group)
        moves, stream = moves_of(group, self._places), self._streams[group.device]
        self._stage(group, moves, stream)
        with self._lock:
            event = torch.cuda.Event()
            event.record(stream)
            self._events[group.index] = len(self._events), event

    def settle(self) -> None:
        """Return when all that was brought is there for everybody, on whatever stream, without a wait."""
        for stream in self._streams.values():
            stream.synchronize()

    def _stage(self, group: Group, moves: Sequence[Move], stream: torch.cuda.Stream) -> None:
        digests = {weight.name: weight_hasher() for weight in group.weights} if self._hashes else {}
        for low, high in steps(group.begin, group.end):
            with self._buffer() as buffer:
                at = self._source.read(group.file, low, high, buffer.memory)
                for weight in group.weights if self._hashes else ():
                    begin, end = max(weight.offset, low), min(weight.offset + weight.nbytes, high)
                    if begin < end:
                        digests[weight.name].update(buffer.memory[at + begin - low : at + end - low])
                with torch.cuda.stream(stream):
                    for move in moves:
                        self._copy(move, low, high, buffer.bytes, low - at)
                    buffer.copied = torch.cuda.Event(blocking=True)
                    buffer.copied.record(stream)
        self._digests.update({name: digest.hexdigest() for name, digest in digests.items()})

    @contextlib.contextmanager
    def _buffer(self) -> Iterator[_Buffer]:
        """The buffer of the ring that was used longest ago, once nothing is copied from it any more."""
        buffer = self._ring.get()
        try:
            if buffer is None:
                buffer = _Buffer()
            if buffer.copied is not None:
                buffer.copied.synchronize()
            yield buffer
        finally:
            self._ring.put(buffer)

    def _copy(self, move: Move, low: int, high: int, source: torch.Tensor, first: int) -> None:
        """Copy what of the move lies within `low` and `high` of the file. `first` is the file's offset of the source's first byte."""
        begin, end = max(move.begin, low), min(move.end, high)
        if begin < end:
            at = move.place.begin + begin - move.begin
            _copy_async(self._slabs[move.place.slab][at : at + end - begin], source[begin - first : end - first])

    def check(self, group: Group) -> None:
        for weight in group.weights if self._hashes else ():
            if self._digests.pop(weight.name) != weight.xxh3:
                raise Corrupt(f"{weight.name} in {group.file} is not what compile wrote (its xxh3 differs)", COMPILE_AGAIN)

    def hurry(self, group: Group) -> None:
        """Nothing that would: its copies are on the stream."""

    def wait(self, group: Group) -> None:
        """Have this thread's current stream wait for the group, on the device. A turn stands for all turns before it."""
        turn, event = self._events.get(group.index, (-1, None))
        if event is None:  # everything is in, and was dropped
            return
        stream = torch.cuda.current_stream(group.device)
        key = group.device, stream.cuda_stream
        if self._waited.get(key, -1) < turn:
            stream.wait_event(event)
            self._waited[key] = turn

    def drop(self) -> None:
        """Everything is in: keep nothing that the state's weights do not keep themselves. Buffers go back to torch's pinned memory."""
        self._slabs, self._events = [], {}
        self._ring = queue.SimpleQueue()


def _allocate_all(sizes: Sequence[SlabSize]) -> list[torch.Tensor]:
    slabs: list[torch.Tensor] = []
    try:
        with torch.inference_mode(False):  # or no other thread could copy into them
            for size in sizes:
                slabs.append(_allocate(size.device, size.nbytes))
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        slabs.clear()
        device = size.device
        wanted = sum(each.nbytes for each in sizes if each.device == device)
        raise TidalError(
            f"{device} has no room for {wanted / 1e9:.2f} GB of weights{_free(device, error)}",
            "free the device of other processes or take a larger one; plain init needs as much, so that --eager won't help",
        ) from None
    return slabs


def _free(device: str, error: RuntimeError) -> str:
    """What there is room for; nothing to say where there was none even for the driver's own part of the process."""
    if not isinstance(error, torch.OutOfMemoryError):
        return ""
    torch.cuda.empty_cache()  # to the driver, which tells how much is free, and for whoever else needs some
    free, total = _memory(device)
    return f": {free / 1e9:.2f} of {total / 1e9:.2f} GB are free"


def _allocate(device: str, nbytes: int) -> torch.Tensor:
    return torch.empty(nbytes, dtype=torch.uint8, device=device)


def _memory(device: str) -> tuple[int, int]:
    """Bytes that are free, and all."""
    return torch.cuda.mem_get_info(device)


def pin(nbytes: int) -> torch.Tensor:
    """Bytes of page-locked memory, which a copy engine can read by itself."""
    return torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=True)


def view_of(memory: torch.Tensor) -> memoryview:
    """A CPU tensor's bytes, which it shares."""
    array = (ctypes.c_char * memory.numel()).from_address(memory.data_ptr())
    array.owner = memory  # type: ignore[attr-defined]  # the view keeps the array, and so the tensor
    return memoryview(array).cast("B")


def _copy_async(target: torch.Tensor, source: torch.Tensor) -> None:
    """On the current stream."""
    target.copy_(source, non_blocking=True)
