"""A stand-in for the few calls of torch.cuda that the streaming engine makes, where there is no GPU: for its logic, not for its speed.

Device memory is plain memory. A copy stream is a thread that does what was put on it, in order, and no faster than it is let; the
stream that computes does everything at once, so that its waiting for an event is the caller's.
"""

import contextlib
import mmap
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from tidalctl.runtime.weights import cuda
from tidalctl.runtime.weights import device_arrival as arrival

PATIENCE_S = 20


class Event:
    """Done when the stream that it was recorded on gets to it. One that nobody recorded is done."""

    def __init__(self, blocking: bool = False) -> None:
        self.done = threading.Event()
        self.done.set()

    def record(self, stream: "Stream") -> None:
        self.done = done = threading.Event()
        stream.put(done.set)

    def synchronize(self) -> None:
        assert self.done.wait(PATIENCE_S), "a copy never came"


class Stream:
    def __init__(self, device: str) -> None:
        self.cuda_stream = id(self)
        self.device = device
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self._work.get()()

    def put(self, step: Callable[[], None]) -> None:
        self._work.put(step)

    def wait_stream(self, other: "Computing") -> None:
        pass

    def synchronize(self) -> None:
        event = Event()
        event.record(self)
        event.synchronize()


class Computing:
    """What operators are launched on: it has no queue."""

    def __init__(self, handle: int = 0) -> None:
        self.cuda_stream = handle
        self.waits: list[Event] = []

    def wait_event(self, event: Event) -> None:
        self.waits.append(event)
        event.synchronize()


class StandIn:
    """What was asked of the device, and how fast it is. `link`: clear it to hold all copies. `pace`: bytes a second, None: at once."""

    def __init__(self, room: int = 2**40, pace: float | None = None) -> None:
        self.room = room
        self.pace = pace
        self.link = threading.Event()
        self.link.set()
        self.allocated: list[tuple[str, int]] = []
        self.copies: list[int] = []  # bytes of each
        self.computing = Computing()
        self._current = threading.local()

    def allocate(self, device: str, nbytes: int) -> torch.Tensor:
        if nbytes > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.room -= nbytes
        self.allocated.append((device, nbytes))
        return torch.full((nbytes,), 255, dtype=torch.uint8)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        def step() -> None:
            assert self.link.wait(PATIENCE_S)
            if self.pace:
                time.sleep(len(source) / self.pace)
            target.copy_(source)
            self.copies.append(len(source))

        self._current.stream.put(step)

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self._current.stream = stream
        yield
        self._current.stream = None


def pin(nbytes: int) -> torch.Tensor:
    """On a page's boundary, as page-locked memory is."""
    return torch.frombuffer(mmap.mmap(-1, nbytes), dtype=torch.uint8)


def install(made: StandIn, put: Callable[[Any, str, Any], None] = setattr) -> StandIn:
    """In the place of torch.cuda. `put` sets an attribute, for as long as it is wanted."""
    put(cuda, "_allocate", made.allocate)
    put(cuda, "_memory", lambda device: (made.room, 2**40))
    put(cuda, "_copy_async", made.copy)
    put(cuda, "pin", pin)
    put(arrival, "pin", pin)
    put(torch.cuda, "Stream", Stream)
    put(torch.cuda, "Event", Event)
    put(torch.cuda, "stream", made.stream)
    put(torch.cuda, "current_stream", lambda device: made.computing)
    put(torch.cuda, "device_count", lambda: 1)
    return made
