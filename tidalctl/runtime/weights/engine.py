"""Brings groups in, in order, and lets compute wait for one. Scheduling and accounting; of devices it knows four calls.

Workers take the next group, have the device bring it in, and have it checked; then it is released to compute. A group that compute
asks for before its turn jumps the queue. One that the trace saw no use of, and that is not there when it is asked for, is a miss.
"""

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Protocol

from tidalctl.artifacts.bundle.weight_groups import Group
from tidalctl.artifacts.errors import TidalError

NICE = 10  # of workers: to the kernel a tenth of what a thread at 0 is
TURN = 0.0005  # seconds
WORKERS = 4  # what a core leaves of its time is shared among them: two bring less in beside imports that take all of one core


class Device(Protocol):
    """Where groups go. Calls come from many threads, each group's in this order, and release the interpreter lock while they block."""

    def bring(self, group: Group) -> None:
        """Bring its bytes to where compute will read them, or on their way there. Raises OSError or TidalError."""

    def check(self, group: Group) -> None:
        """Raise TidalError where the bytes that were brought are not the manifest's."""

    def hurry(self, group: Group) -> None:
        """Do what makes the first reading of a group that is there and right quicker: somebody stands still."""

    def wait(self, group: Group) -> None:
        """From the thread that computes: what it launches from now on sees the group's bytes."""


class NotStarted(TidalError):
    """Somebody waits for a weight of an engine that was not started yet."""


class Engine:
    """Groups on their way to a device. `need` and `wait` raise what went wrong with a group, each time.

    `ahead` bounds the bytes that are brought in beyond the furthest group that was needed (None: no bound). `workers`: groups that are
    brought in at a time. `elsewhere`: indices of groups that another engine brings; here they count as released.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        device: Device,
        *,
        check: bool = True,
        ahead: int | None = None,
        workers: int = WORKERS,
        elsewhere: Collection[int] = (),
    ) -> None:
        self._groups = groups
        self._device = device
        self._checks = check
        self._ahead = ahead
        self._queue = deque(index for index in range(len(groups)) if index not in elsewhere)
        self._urgent: deque[int] = deque()
        self._taken = [index in elsewhere for index in range(len(groups))]
        self._released = list(self._taken)
        self._needed = [False] * len(groups)
        self._errors: dict[int, BaseException] = {}
        self._pending = len(self._queue)
        self._begun = self._used = 0  # bytes that workers have taken up, and of the furthest place that was needed
        self._begun_at = list(accumulate((group.nbytes for group in groups), initial=0))  # bytes before each group
        self._unbounded = ahead is None
        self._started = False
        self._checked = 0
        self._changed = threading.Condition()
        self._waiting = 0  # threads of compute's that wait for a group
        self.misses = 0
        self.stalls: list[tuple[Group, int, int]] = []  # what compute waited for: begin and end in ns of the monotonic clock
        self.on_done: Callable[[], None] = lambda: None  # called once, by a worker or by start, when all are in and right
        self.on_stall: Callable[[Group, int, int], None] = lambda group, begin_ns, end_ns: None  # by whoever waited
        self.on_span: Callable[[str, int, int], None] = lambda name, begin_ns, end_ns: None
        self.threads = [threading.Thread(target=self._work, name=f"stream: {n}", daemon=True) for n in range(workers)]

    def start(self, checked: int = 0) -> None:
        """Begin to bring groups in, of which the first ones, as many as are `checked`, are known to be there and right."""
        self._checked = checked
        self._started = True
        if not self._pending:
            self.on_done()
            return
        for thread in self.threads:
            thread.start()

    @property
    def done(self) -> bool:
        """Whether every group is in and right."""
        return self._pending == 0 and not self._errors

    def released(self, index: int) -> bool:
        """Whether this group may be read."""
        return self._released[index]

    def need(self, indices: Iterable[int]) -> None:
        """Return when these groups may be read. Raises what went wrong with one of them."""
        if self.done:
            return
        for index in indices:
            if not self._released[index]:
                self._stall(index)
            elif not self._needed[index]:
                with self._changed:
                    self._note(index)
            self._device.wait(self._groups[index])

    def fetch(self, index: int) -> None:
        """Return when this group is in, ahead of the queue where nobody has begun with it. Raises what went wrong with it.

        For a worker of another engine, which passes the group on: neither a stall of compute's nor a miss.
        """
        with self._changed:
            if not self._taken[index]:
                self._urgent.append(index)
            self._note(index)
            while not self._released[index] and index not in self._errors:
                self._changed.wait()
            self._raise(index if index in self._errors else None)

    def prefer(self, indices: Collection[int]) -> None:
        """Bring these groups in before all others that nobody has begun with, in the order that they have."""
        wanted = set(indices)
        with self._changed:
            self._queue = deque(sorted(self._queue, key=lambda index: index not in wanted))

    def wait(self) -> None:
        """Return when every group is in and right. Raises what went wrong with the first that is not."""
        with self._changed:
            self._refuse_held()
            self._unbounded = True
            self._changed.notify_all()
            self._waiting += 1
            try:
                while self._pending and not self._errors:
                    self._changed.wait()
            finally:
                self._waiting -= 1
            self._raise(min(self._errors, default=None))

    def end(self) -> None:
        """Return when no worker touches a group any more, whatever went wrong."""
        with self._changed:
            self._unbounded = True
            self._changed.notify_all()
        for thread in self.threads:
            if thread.ident is not None:  # it was started
                thread.join()

    def _stall(self, index: int) -> None:
        group, begin = self._groups[index], time.monotonic_ns()
        with self._changed:
            self._refuse_held()
            self.misses += group.first_use is None
            self._waiting += 1
        try:
            self.fetch(index)
        finally:
            with self._changed:
                self._waiting -= 1
        end = time.monotonic_ns()
        self.stalls.append((group, begin, end))
        self.on_stall(group, begin, end)

    def _refuse_held(self) -> None:
        """Nobody may wait for what nobody brings."""
        if not self._started:
            raise NotStarted("weights are read before the start", "leave what computes with them to init or the handler")

    def _note(self, index: int) -> None:
        """Compute is here: readers may go so much further."""
        self._needed[index] = True
        self._used = max(self._used, self._begun_at[index] + self._groups[index].nbytes)
        self._changed.notify_all()

    def _raise(self, index: int | None) -> None:
        if index is not None:
            raise self._errors[index]

    # -- the workers

    def _work(self) -> None:
        index = None
        _give_way()
        try:
            while (index := self._next()) is not None:
                with _SHORT_TURNS:
                    self._bring(index)
        except BaseException as error:  # noqa: BLE001 - whatever a reader dies of, nobody may wait for it for ever
            with self._changed:
                for other, released in enumerate(self._released):
                    if not released:
                        self._errors.setdefault(other, _died(error))
                self._changed.notify_all()

    def _next(self) -> int | None:
        """The group to bring in now; None when there is no more. Waits while readers are as far ahead as they may be."""
        with self._changed:
            while True:
                queue = self._urgent or self._queue
                while queue and self._taken[queue[0]]:
                    queue.popleft()
                if not queue:
                    if self._urgent or self._queue:
                        continue
                    return None
                group = self._groups[queue[0]]
                if queue is self._urgent or self._unbounded or self._begun + group.nbytes <= self._used + (self._ahead or 0):
                    index = queue.popleft()
                    self._taken[index] = True
                    self._begun += group.nbytes
                    return index
                self._changed.wait()

    def _bring(self, index: int) -> None:
        group = self._groups[index]
        try:
            with self._span("read weights ahead"):
                self._device.bring(group)
            if self._checks and index >= self._checked:
                with self._span("check weights"):
                    self._device.check(group)
            if self._waiting or index < self._checked:
                self._device.hurry(group)
        except (OSError, TidalError) as error:
            with self._changed:
                self._errors[index] = error
                self._pending -= 1
                self._changed.notify_all()
            return
        with self._changed:
            self._released[index] = True
            self._pending -= 1
            last = self._pending == 0 and not self._errors  # gates stay where a group is wrong: it could be read yet
            self._changed.notify_all()
        if last:
            self.on_done()

    @contextlib.contextmanager
    def _span(self, name: str) -> Iterator[None]:
        begin = time.monotonic_ns()
        try:
            yield
        finally:
            self.on_span(name, begin, time.monotonic_ns())


class _ShortTurns:
    """While any worker of the process is in here, a thread that computes lets another have the interpreter lock after `TURN` seconds.

    A worker asks for the lock a few hundred times, and would wait 5 ms each time while the function imports. The setting is the
    interpreter's, and so is this.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = 0.0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(self._before, TURN))

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and sys.getswitchinterval() <= TURN * 1.01:  # and nobody has set it otherwise meanwhile
                sys.setswitchinterval(self._before)


_SHORT_TURNS = _ShortTurns()


def _give_way() -> None:
    """Let this thread take less of a core that the function wants too. Where nobody wants it, it has it all."""
    with contextlib.suppress(OSError):  # a sandbox that forbids it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_BATCH, os.sched_param(0))  # none is to preempt the function


def _died(error: BaseException) -> TidalError:
    return TidalError(
        f"a reader of weights died: {type(error).__name__}: {error}", "run again; with --eager it needs no reader"
    )
