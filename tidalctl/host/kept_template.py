"""A template process as the front sees it: what it is doing, and the requests that wait for it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidalctl.artifacts.bundle.manifest import MANIFEST
from tidalctl.host.wire import Gone, close, send

GRACE_S = 5.0


class KeptTemplate:
    """One template process. `orders` is the socket by which it is told of requests, and tells of itself.

    It imports the function in the environment and the directory of the first caller.
    """

    def __init__(self, bundle: str, environ: Mapping[str, str], directory: str) -> None:
        self.bundle = bundle
        self.keep_s = 0.0
        self.orders, theirs = socket.socketpair()
        self.state = "starting"  # starting, ready, or why it can't be forked
        self.cause: dict[str, str] | None = None
        self._answered = self._running = 0
        self._since = self._idle_since = time.monotonic()
        self._waiting: list[tuple[socket.socket, dict[str, Any], list[int]]] = []
        self._manifest = _stamp(bundle)
        command = [sys.executable, "-P", "-m", "tidalctl.host.template_process", bundle, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command, env=dict(environ), cwd=directory, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL
            )

    def outdated(self) -> bool:
        """Whether the bundle is another one by now, or the process is gone without having said why."""
        return (self.cause is None and self._process.poll() is not None) or _stamp(self.bundle) != self._manifest

    def ask(self, connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
        """Hand a request on, now or when the template is ready. Copies are kept: the caller closes what it has."""
        if self.cause is not None:
            send(connection, self.cause)
            return
        mine = (connection.dup(), request, [os.dup(descriptor) for descriptor in descriptors])
        self._running += 1
        if self.state == "ready":
            self._hand_on(*mine)
        else:
            self._waiting.append(mine)

    def heard(self, message: dict[str, Any]) -> None:
        """Take note of what the template process says."""
        if "ended" in message:
            self._running -= 1
            self._answered += bool(message["ended"])  # 0 where it was for an ordinary start after all
            self._idle_since = time.monotonic()
            return
        waiting, self._waiting = self._waiting, []
        if "code" in message:
            self.cause, self.state = {"code": str(message["code"]), "text": str(message["text"])}, str(message["code"])
            for connection, _, descriptors in waiting:
                self._refuse(connection, descriptors)
            return
        self.state = "ready"
        for item in waiting:
            self._hand_on(*item)

    def _hand_on(self, connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
        with connection:
            try:
                send(self.orders, request, (connection.fileno(), *descriptors))
            except Gone:  # whoever waits meets the end of the connection
                self._running -= 1
            finally:
                close(descriptors)

    def _refuse(self, connection: socket.socket, descriptors: list[int]) -> None:
        self._running -= 1
        self._idle_since = time.monotonic()
        with connection:
            close(descriptors)
            try:
                send(connection, self.cause or {})
            except Gone:  # nobody waits any more
                return

    def idle_s(self, now: float) -> float:
        """Return for how long nothing has been asked for."""
        return 0.0 if self._running else now - self._idle_since

    def status(self) -> dict[str, Any]:
        """Return what `tidalctl ps` shows."""
        now = time.monotonic()
        return {
            "bundle": self.bundle,
            "pid": self._process.pid,
            "state": self.state,
            "cause": self.cause["text"] if self.cause is not None else None,
            "running": self._running,
            "answered": self._answered,
            "age_s": round(now - self._since, 3),
            "idle_s": round(self.idle_s(now), 3),
            "keep_s": self.keep_s,
        }

    def end(self) -> None:
        """End the process, and its workers with it."""
        for connection, _, descriptors in self._waiting:
            connection.close()
            close(descriptors)
        self._waiting = []
        self.orders.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _stamp(bundle: str) -> tuple[int, int, int]:
    """Return what tells one manifest from another that has its name."""
    try:
        status = Path(bundle, MANIFEST).stat()
    except OSError:
        return (0, 0, 0)
    return status.st_ino, status.st_size, status.st_mtime_ns
