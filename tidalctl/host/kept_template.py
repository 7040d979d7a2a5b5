"""A template process as the front sees it: what it is doing, and the requests that are handed to it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tidalctl.artifacts.bundle import MANIFEST
from tidalctl.host.failed_template import failed_template
from tidalctl.host.import_reads import stamp
from tidalctl.host.wire import Gone, receive, send

GRACE_S = 5.0
IDLE_S, ASKED_EVERY_S = 1.0, 10.0  # when a template is asked what it holds
LARGE = 64 * 2**10  # bytes of an event that the socket's buffer may not take at once


class NotServed(Exception):
    """The template process can't have an event answered. `code` and `text` are of the cause."""

    def __init__(self, code: str, text: str) -> None:
        self.code, self.text = code, text
        super().__init__(text)


class KeptTemplate:
    """One template process, from its start to its end.

    It imports the function in the environment and the directory that are given. `changed` is called when something about it has: it is
    ready, it has failed, an event has ended, a spare is ready. To be made in a running event loop.

    Attributes: `state` is "starting", "ready", "failed" or "ended"; `cause` why it failed; `spawned` why its workers are no forks;
    `answered` events; `spares` that are ready; `memory_bytes` that it and its workers held last.
    """

    def __init__(self, bundle: str, environ: Mapping[str, str], directory: str, changed: Callable[[], None]) -> None:
        self.bundle = bundle
        self.state = "starting"
        self.cause: NotServed | None = None
        self.spawned: dict[str, str] | None = None
        self.answered = self.spares = 0
        self._waiting = self._handed = 0  # events until they are handed on, and from then until they have ended
        self.since = self.idle_since = time.monotonic()
        self.ready_after_s = 0.0
        self.memory_bytes = 0
        self._changed_since = True  # it may hold more than it said last
        self._asked_memory = self.since
        self._changed = changed
        self._manifest = stamp(os.path.join(bundle, MANIFEST))
        self._read_at_import: dict[str, list[int]] = {}
        self._orders, theirs = socket.socketpair()
        self._sending = asyncio.Lock()
        self._settled = asyncio.Event()  # it is ready, or will not be
        command = [sys.executable, "-P", "-m", "tidalctl.host.template_process"]
        command += [bundle, str(theirs.fileno()), str(os.getpid())]
        with theirs:
            self._process = subprocess.Popen(
                command, env=dict(environ), cwd=directory, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL
            )
        self.pid = self._process.pid
        asyncio.get_running_loop().add_reader(self._orders, self._hear)

    @property
    def running(self) -> int:
        """Events that are waiting for it, or being answered."""
        return self._waiting + self._handed

    def outdated(self) -> bool:
        """Whether the bundle is another one by now."""
        return stamp(os.path.join(self.bundle, MANIFEST)) != self._manifest

    def read_others(self) -> bool:
        """Whether a file that its imports have read is another one by now."""
        return any(stamp(path) != then for path, then in self._read_at_import.items())

    async def settled(self) -> None:
        """Return when it is ready. Raises NotServed where it will not be."""
        await self._settled.wait()
        if self.cause is not None:
            raise self.cause

    async def hand(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Hand a request on when the template is ready. Raises NotServed where it can't be; the descriptors stay the caller's."""
        self._waiting += 1
        try:
            await self.settled()
            async with self._sending:
                if len(message.get("event", "")) > LARGE:
                    await asyncio.to_thread(send, self._orders, message, descriptors)
                else:
                    send(self._orders, message, descriptors)
            if self._orders.fileno() >= 0:  # it has not ended meanwhile, which ended the event
                self._handed += 1
        except Gone:
            self._gone()
            raise _ended() from None
        finally:
            self._waiting -= 1

    def make_spares(self, count: int) -> None:
        """Have so many spares made, where there are fewer."""
        if self.state == "ready" and not self._sending.locked():
            try:
                send(self._orders, {"verb": "spares", "count": count})
            except Gone:  # what reads its socket learns of it
                return

    def ask_memory(self) -> None:
        """Have it say what it and its workers hold, where that may have changed since it said so.

        It walks through page tables for that, 0.1 s for 2 GB of weights, and takes no event meanwhile: it is asked when it is idle, and
        under load now and then.
        """
        now = time.monotonic()
        due = self.idle_s(now) >= IDLE_S or now - self._asked_memory >= ASKED_EVERY_S
        if self.state == "ready" and self._changed_since and due and not self._sending.locked():
            self._changed_since, self._asked_memory = False, now
            try:
                send(self._orders, {"verb": "memory"})
            except Gone:  # what reads its socket learns of it
                return

    def idle_s(self, now: float) -> float:
        """Return for how long nothing has been asked for."""
        return 0.0 if self.running else now - self.idle_since

    def status(self) -> dict[str, Any]:
        """Return what `tidalctl ps` shows."""
        now = time.monotonic()
        told = self.cause.text if self.cause is not None else (self.spawned or {}).get("text")
        return {
            "bundle": self.bundle,
            "pid": self.pid,
            "state": self.cause.code if self.cause is not None else self.state,
            "workers": "spawned" if self.spawned else "forked",
            "cause": told,
            "running": self.running,
            "spares": self.spares,
            "answered": self.answered,
            "age_s": round(now - self.since, 3),
            "idle_s": round(self.idle_s(now), 3),
        }

    def reap(self) -> None:
        """Leave no zombie, where the process has ended."""
        self._process.poll()

    async def end(self) -> None:
        """End the process, and its workers with it."""
        self._close()
        if not self._settled.is_set():
            self.state, self.cause = "failed", _ended()
            self._settled.set()
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def _hear(self) -> None:
        try:
            message, _ = receive(self._orders)
        except Gone:
            self._gone()
            return
        if "ended" in message:
            self._handed -= 1
            self.answered += bool(message["ended"])  # 0 where it was for an ordinary start after all
            self.idle_since = time.monotonic()
        elif "memory" in message:
            self.memory_bytes = int(message["memory"])
            return
        elif "spares" in message:
            self.spares = int(message["spares"])
        elif "code" in message:
            self.cause = NotServed(str(message["code"]), str(message["text"]))
            self.state = "failed"
            self._settled.set()
        else:
            self.state, self.spawned = "ready", message.get("spawned")
            self._read_at_import = message["read"]
            self.ready_after_s = time.monotonic() - self.since
            self._settled.set()
        self._changed_since = True
        self._changed()

    def _gone(self) -> None:
        """Its process has ended, which may be known already."""
        self._close()
        if self.state in ("failed", "ended"):
            return
        self.cause = _ended()
        self.state = "ended" if self.state == "ready" else "failed"
        self._handed = self.spares = 0
        self._settled.set()
        self._changed()

    def _close(self) -> None:
        if self._orders.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._orders)
            self._orders.close()


def _ended() -> NotServed:
    return NotServed(**failed_template("its process ended"))
