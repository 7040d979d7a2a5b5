"""The workers of one template process: hands each request to one, makes spares, and tells how each has ended."""

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from tidalctl.host.failed_template import failed_template
from tidalctl.host.memory import held_by
from tidalctl.host.process_properties import environment_mismatch
from tidalctl.host.wire import Gone, close, receive, send
from tidalctl.host.worker_source import WorkerSource, kill_group, signal_worker

INTERRUPTED_S = 0.5  # that a worker has to end, whose client is gone
FIRST_DELAY_S, LAST_DELAY_S = 0.25, 60.0  # after a spare was lost, until another is made


class Asked(NamedTuple):
    """A request: its client's connection, which says when it is gone, and the descriptors of the worker."""

    connection: socket.socket
    message: dict[str, Any]
    descriptors: list[int]
    since: float  # on the monotonic clock


class Worker:
    """A process that answers one request. `asked` is that, once it has one; `interrupted` when its client has gone."""

    def __init__(self, pid: int, orders: socket.socket) -> None:
        self.pid, self.orders = pid, orders
        self.asked: Asked | None = None
        self.ready: float | None = None  # since when a request can be handed to it
        self.interrupted: float | None = None
        self.kept_until: float | None = None  # one that has answered, and stays until then for another request


class Workers:
    """Requests come by the socket `orders`, and what becomes of them goes back by it.

    `environ` is what the function was imported in.
    """

    def __init__(self, source: WorkerSource, environ: dict[str, str], orders: socket.socket) -> None:
        self._source, self._environ, self._orders = source, environ, orders
        self._workers: dict[int, Worker] = {}
        self._waiting: list[Asked] = []
        self._lost_spares, self._spares_from = 0, 0.0  # since one was ready; until then none is made
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        self._listen(self._orders, self._order)
        self._selector.register(self._woken, selectors.EVENT_READ, lambda: os.read(self._woken, 4096))
        source.in_fork = self._close_all

    def serve(self) -> None:
        """Do what is asked for until the front is gone."""
        with suppress(Gone):
            while True:
                look_again = any(worker.interrupted or worker.kept_until for worker in self._workers.values())
                for key, _ in self._selector.select(INTERRUPTED_S if look_again else None):
                    if self._selector.get_map().get(key.fd) is key:  # and not closed for what was heard before it
                        key.data()
                self._reap()
                self._kill_interrupted()
                self._let_go()

    def end(self) -> None:
        """End the workers."""
        for pid in self._workers:
            signal_worker(pid, signal.SIGKILL)

    def _close_all(self) -> None:
        """Close, in a fork, what only this process is to have."""
        self._selector.close()
        close((self._woken, self._wake))
        self._orders.close()
        for worker in self._workers.values():
            worker.orders.close()
        for asked in [*self._waiting, *(worker.asked for worker in self._workers.values() if worker.asked)]:
            asked.connection.close()
        for asked in self._waiting:
            close(asked.descriptors)

    def _listen(self, connection: socket.socket, heard: Callable[[], object]) -> None:
        self._selector.register(connection, selectors.EVENT_READ, heard)

    def _forget(self, connection: socket.socket) -> None:
        if connection.fileno() >= 0 and connection in self._selector.get_map():
            self._selector.unregister(connection)

    # -- what the front asks for

    def _order(self) -> None:
        message, descriptors = receive(self._orders)
        if message["verb"] == "memory":
            send(self._orders, {"memory": held_by([os.getpid(), *self._workers])})
            return
        if message["verb"] == "spares":
            self._make_spares(int(message["count"]))
            return
        asked = Asked(socket.socket(fileno=descriptors[0]), message, descriptors[1:], time.monotonic())
        mismatch = environment_mismatch(self._source.manifest, self._environ, message.get("environ", self._environ))
        if mismatch is not None:
            self._refuse(asked, {"code": mismatch.code, "text": mismatch.text})
        else:
            self._waiting.append(asked)
            self._listen(asked.connection, lambda: self._client_gone(asked))
            self._hand_out()

    def _make_spares(self, count: int) -> None:
        """Make spares until there are so many, or none for a while where the last ones have ended without a request."""
        if time.monotonic() < self._spares_from:
            return
        with suppress(OSError):  # no more processes, or no memory for one: an event will say so
            for _ in range(count - self._spares(ready=False)):
                self._make(ahead=True)

    def _spares(self, *, ready: bool) -> int:
        """Return how many workers are without a request: those that are `ready`, or all."""
        idle = [worker for worker in self._workers.values() if worker.asked is None and worker.kept_until is None]
        return sum(worker.ready is not None for worker in idle) if ready else len(idle)

    def _tell_spares(self) -> None:
        send(self._orders, {"spares": self._spares(ready=True)})

    # -- workers

    def _make(self, *, ahead: bool) -> Worker:
        mine, theirs = socket.socketpair()
        with theirs:
            pid = self._source.start(mine, theirs, ahead=ahead)
        worker = self._workers[pid] = Worker(pid, mine)
        if ahead:
            self._listen(mine, lambda: self._spare_said(worker))
        return worker

    def _spare_said(self, worker: Worker) -> None:
        try:
            message, _ = receive(worker.orders)
        except Gone:  # it has ended, or is about to
            self._forget(worker.orders)
            return
        if "code" in message:
            self._refuse_waiting(message)
            return
        worker.ready = time.monotonic()
        self._lost_spares = 0
        if (asked := worker.asked) is not None:
            worker.asked, worker.kept_until = None, worker.ready + float(asked.message["keep_alive_s"])
            self._tell_ended(asked, worker.pid, 0, interrupted=False)
        self._hand_out()
        self._tell_spares()

    def _hand_out(self) -> None:
        """Hand what waits to workers that are ready, and have others made."""
        try:
            while self._waiting:
                idle = (worker for worker in self._workers.values() if worker.ready and worker.asked is None)
                spare = max(idle, key=lambda worker: worker.kept_until or 0.0, default=None)
                if spare is None and not self._source.immediate:
                    break
                self._hand(spare or self._make(ahead=False))
            for _ in range(len(self._waiting) - self._spares(ready=False)):
                self._make(ahead=True)
        except OSError as error:  # no more processes, or no memory for one
            self._refuse_waiting(failed_template(error))

    def _hand(self, worker: Worker) -> None:
        asked = self._waiting[0]
        self._forget(worker.orders)
        worker.asked = asked
        if worker.ready:
            self._tell_spares()  # before it answers, so that nobody sees a spare that is none any more
        try:
            kind = "spare" if worker.ready and worker.ready < asked.since else self._source.kind
            kind = "kept" if worker.kept_until else kind
            send(worker.orders, {**asked.message, "start": kind}, asked.descriptors)
        except Gone:  # it was killed: the request is another's
            worker.ready = worker.asked = None
            return
        if asked.message.get("keep_alive_s"):
            self._listen(worker.orders, lambda: self._spare_said(worker))
        else:
            worker.orders.close()
        del self._waiting[0]
        close(asked.descriptors)

    def _client_gone(self, asked: Asked) -> None:
        """The client of a request has closed its connection."""
        self._forget(asked.connection)
        for worker in self._workers.values():
            if worker.asked is asked:
                worker.interrupted = time.monotonic()
                signal_worker(worker.pid, signal.SIGINT)
                return
        self._waiting.remove(asked)
        self._refuse(asked, {})

    def _refuse(self, asked: Asked, message: dict[str, Any]) -> None:
        self._forget(asked.connection)
        close(asked.descriptors)
        with asked.connection, suppress(Gone):
            send(asked.connection, message)
        send(self._orders, {"ended": 0})

    def _refuse_waiting(self, message: dict[str, Any]) -> None:
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            self._refuse(asked, message)

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            worker = self._workers.pop(pid, None)
            if worker is None:
                continue
            self._forget(worker.orders)
            worker.orders.close()
            if worker.asked is None:
                if worker.kept_until is None:
                    self._spare_ended(status)
                continue
            if worker.asked.message["verb"] == "invoke":
                kill_group(pid)
            self._tell_ended(worker.asked, pid, status, interrupted=worker.interrupted is not None)

    def _tell_ended(self, asked: Asked, pid: int, status: int, *, interrupted: bool) -> None:
        """Say to a request's client, and to the front, with which wait status the worker has ended, or has ended the request."""
        self._forget(asked.connection)
        with asked.connection, suppress(Gone):
            send(asked.connection, {"status": status})
        send(self._orders, {"ended": pid, "status": status, "interrupted": interrupted})

    def _spare_ended(self, status: int) -> None:
        """One has ended before it had a request: those that wait would wait for ever, where no other is being made."""
        self._spares_from = time.monotonic() + min(FIRST_DELAY_S * 2**self._lost_spares, LAST_DELAY_S)
        self._lost_spares += 1
        if not self._spares(ready=False):
            error = f"a process of it ended before it was ready (exit status {os.waitstatus_to_exitcode(status)})"
            self._refuse_waiting(failed_template(error))
        self._tell_spares()

    def _let_go(self) -> None:
        """End workers that have been kept for long enough: they end by themselves when no request can come any more."""
        for worker in self._workers.values():
            if worker.asked is None and worker.kept_until and worker.kept_until < time.monotonic():
                worker.ready = None
                self._forget(worker.orders)
                worker.orders.close()

    def _kill_interrupted(self) -> None:
        for worker in self._workers.values():
            if worker.interrupted and time.monotonic() - worker.interrupted > INTERRUPTED_S:
                signal_worker(worker.pid, signal.SIGKILL)
