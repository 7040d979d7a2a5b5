"""What platforms do now: a process an instance, started when none of its function is idle, and kept warm for a time."""

import errno
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from tidalctl.bench.replay.instance import Instance, NoAnswer
from tidalctl.bench.replay.resources import Usage, tree, used_by
from tidalctl.bench.replay.serving import Answer, Served, Serving

LOOK_EVERY_S = 0.1  # for instances that have been idle for too long


class InstancePool(Serving):
    """Instances of some functions, each answering one request at a time.

    A request that finds no idle instance of its function has one started (cold). The one that was idle for the shortest time answers
    (warm), and those that have been idle for `keep_warm_s` are ended. When all together hold more than `memory` bytes, those are ended
    that have been idle for the longest time.
    """

    def __init__(
        self,
        functions: Mapping[str, Served],
        command: Callable[[Served], list[str]],
        keep_warm_s: float,
        timeout_s: float,
        memory: int | None = None,
    ) -> None:
        self._functions, self._command = functions, command
        self._keep_warm_s, self._timeout_s, self._memory = keep_warm_s, timeout_s, memory
        self._requests = {
            name: json.dumps({"event": served.request, "context": served.context}).encode() + b"\n"
            for name, served in functions.items()
        }
        self._lock = threading.Condition()
        self._spawning = 0  # instances that are not among the running ones yet
        self._idle: dict[str, list[Instance]] = {name: [] for name in functions}  # the longest idle first
        self._running: dict[int, Instance] = {}
        self._ended = Usage()
        self._closing = threading.Event()
        self._reaper = threading.Thread(target=self._reap, name="reaper")

    def open(self) -> None:
        self._reaper.start()

    def roots(self) -> list[int]:
        with self._lock:
            return list(self._running)

    def used(self) -> Usage:
        with self._lock:
            return self._ended + used_by(tree(self._running))

    def answer(self, function: str) -> Answer:
        try:
            instance, start = self._taken(function)
        except OSError as error:
            return Answer(start="cold", done_ns=time.monotonic_ns(), failed=f"no process: {error.strerror}")
        try:
            reply = instance.ask(self._requests[function], self._timeout_s)
        except NoAnswer as reason:
            self._end(instance)
            return Answer(start=start, done_ns=time.monotonic_ns(), failed=str(reason))
        self._give_back(function, instance)
        if "failed" in reply:
            return Answer(start=start, done_ns=time.monotonic_ns(), failed=reply["failed"])
        return Answer(
            start=start,
            first_ns=reply["first_token_ns"],
            done_ns=reply["done_ns"],
            output=reply["output"],
            strategy=reply.get("strategy"),
            cause=reply.get("cause"),
        )

    def _taken(self, function: str) -> tuple[Instance, str]:
        with self._lock:
            if self._idle[function] and not self._expired(self._idle[function][-1]):
                return self._idle[function].pop(), "warm"
            if self._closing.is_set():
                raise OSError(errno.ECANCELED, "the replay is ending")
            self._spawning += 1
        served = self._functions[function]
        try:
            instance = Instance(self._command(served), served.subject.plain.cwd)
            with self._lock:
                self._running[instance.pid] = instance
        finally:
            with self._lock:
                self._spawning -= 1
                self._lock.notify_all()
        return instance, "cold"

    def _give_back(self, function: str, instance: Instance) -> None:
        instance.idle_since = time.monotonic()
        with self._lock:
            self._idle[function].append(instance)

    def _expired(self, instance: Instance) -> bool:
        return time.monotonic() - instance.idle_since >= self._keep_warm_s

    def _reap(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            with self._lock:
                expired = [instance for idle in self._idle.values() for instance in idle if self._expired(instance)]
                self._take_away(expired)
            for instance in expired:
                self._end(instance)

    def hold(self, memory: Mapping[int, int]) -> None:
        if self._memory is None:
            return
        excess = sum(memory.values()) - self._memory
        ending: list[Instance] = []
        with self._lock:
            idle = [instance for instances in self._idle.values() for instance in instances]
            for instance in sorted(idle, key=lambda instance: instance.idle_since):
                if excess <= 0:
                    break
                excess -= memory.get(instance.pid, 0)
                ending.append(instance)
            self._take_away(ending)
        for instance in ending:
            self._end(instance)

    def _take_away(self, instances: Sequence[Instance]) -> None:
        for idle in self._idle.values():
            idle[:] = [instance for instance in idle if instance not in instances]

    def _end(self, instance: Instance) -> None:
        """End an instance that is nobody's: neither idle nor answering."""
        instance.kill()
        with self._lock:
            if self._running.pop(instance.pid, None) is not None:
                self._ended += instance.reap()

    def close(self) -> None:
        self._closing.set()
        if self._reaper.ident is not None:
            self._reaper.join()
        with self._lock:
            self._lock.wait_for(lambda: not self._spawning)
            left = list(self._running.values())
        for instance in left:
            self._end(instance)
