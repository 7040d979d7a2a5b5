"""A template process: has imported a bundle's function and holds its state, and is forked for each event. It answers none itself.

It has one thread: a fork has no other. What a library starts at import ends in a throwaway fork where the library minds forks. A
process that has more threads all the same is of no use, and says so.
"""

import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.errors import TidalError
from tidalctl.host.process_properties import GlobalGenerators, die_with_parent, environment_mismatch
from tidalctl.host.wire import Gone, close, receive, send
from tidalctl.host.worker import answer
from tidalctl.runtime.process.exit import watch_writes
from tidalctl.runtime.process.frame_stack import with_frame_stack
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.template import Template

INTERRUPTED_S = 1.0  # that a worker has to end, whose client is gone


class NotForked(Exception):
    """The bundle can't be served by forks. `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(reason.text)


class TemplateProcess:
    """The process's loop: requests by the socket `orders`, workers by their process ids."""

    def __init__(
        self, template: Template, generators: GlobalGenerators, environ: dict[str, str], orders: socket.socket
    ) -> None:
        self._template, self._generators, self._orders = template, generators, orders
        self._environ = environ  # in which the function was imported
        self._workers: dict[int, socket.socket] = {}
        self._interrupted: dict[int, float] = {}  # workers, and when
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        self._selector.register(orders, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def serve(self) -> None:
        """Fork for each request, until the front is gone."""
        while True:
            for key, _ in self._selector.select(INTERRUPTED_S if self._interrupted else None):
                if key.fileobj is self._orders:
                    try:
                        self._take(*receive(self._orders))
                    except Gone:
                        return
                elif key.fileobj == self._woken:
                    with suppress(BlockingIOError):
                        os.read(self._woken, 4096)
                else:
                    self._interrupt(key.data)
            self._reap()
            for pid, since in self._interrupted.items():
                if time.monotonic() - since > INTERRUPTED_S:
                    _signal(pid, signal.SIGKILL)

    def end(self) -> None:
        """End the workers."""
        for pid in self._workers:
            _signal(pid, signal.SIGKILL)

    def _take(self, request: dict[str, Any], descriptors: list[int]) -> None:
        connection, streams = socket.socket(fileno=descriptors[0]), descriptors[1:]
        mismatch = environment_mismatch(self._template.manifest, self._environ, request["environ"])
        if mismatch is not None:
            with connection:
                close(streams)
                with suppress(Gone):
                    send(connection, {"code": mismatch.code, "text": mismatch.text})
            send(self._orders, {"ended": 0})
            return
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            self._selector.close()
            close((self._woken, self._wake))
            for other in (self._orders, connection, *self._workers.values()):
                other.close()
            answer(self._template, self._generators, request, streams)  # does not return
        close(streams)
        self._workers[pid] = connection
        self._selector.register(connection, selectors.EVENT_READ, pid)

    def _interrupt(self, pid: int) -> None:
        """A worker's client is gone."""
        self._selector.unregister(self._workers[pid])
        self._interrupted[pid] = time.monotonic()
        _signal(pid, signal.SIGINT)

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            connection = self._workers.pop(pid, None)
            if connection is None:
                continue
            if self._interrupted.pop(pid, None) is None:
                self._selector.unregister(connection)
            with connection, suppress(Gone):
                send(connection, {"status": status})
            send(self._orders, {"ended": pid})


def ready_template(bundle: Path) -> tuple[Template, GlobalGenerators]:
    """Import the bundle's function, and put its states together where no event is needed for that. Raises NotForked or TidalError."""
    now = time.monotonic_ns()
    watch_writes()
    template = Template(bundle, Timeline(now, now))
    if template.weights.on_device:
        raise NotForked(Cause.DEVICE_NOT_FORKED.of(device=template.manifest.fingerprint.device))
    generators = GlobalGenerators()
    with_frame_stack(template.import_ahead)
    generators.imported()
    template.weights.wait()
    template.make_ready(before_first=True)
    template.collector.freeze_now()
    if not (pid := os.fork()):
        os._exit(0)
    os.waitpid(pid, 0)
    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        raise NotForked(Cause.THREADS_NOT_FORKED.of(count=threads - 1))
    return template, generators


def _signal(pid: int, number: int) -> None:
    """Send a signal to a worker and all that it has started."""
    for send_to in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            send_to(pid, number)


def main() -> None:
    die_with_parent()
    environ = dict(os.environ)
    bundle, orders = Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    os.set_inheritable(orders.fileno(), False)
    try:
        template, generators = ready_template(bundle)
    except NotForked as refused:
        reason = refused.reason
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's module may raise anything
        text = error.message if isinstance(error, TidalError) else f"{type(error).__name__}: {error}"
        reason = Cause.TEMPLATE_FAILED.of(error=text)
    else:
        process = TemplateProcess(template, generators, environ, orders)
        send(orders, {"ready": True})
        try:
            process.serve()
        finally:
            process.end()
            os._exit(0)
    with suppress(Gone):
        send(orders, {"code": reason.code, "text": reason.text})
    os._exit(1)


if __name__ == "__main__":
    main()
