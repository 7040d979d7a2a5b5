"""One event on its way through a worker, as the front sees it."""

import asyncio
import contextlib
import json
import os
import socket
from typing import Any

from tidalctl.host.front import Front
from tidalctl.host.kept_template import NotServed
from tidalctl.host.served_function import ServedFunction
from tidalctl.host.wire import LENGTH, LONGEST

LEAVING_S = 10.0
NO_INPUT = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


class WorkerEnded(Exception):
    """The worker has ended without having said how its event ended. `code` is its exit code, or a signal's number below 0."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}")


class Invocation:
    """Use it as a context: leaving it before the end has the worker interrupted, and then killed.

    A worker that has said how its event ended has `LEAVING_S` to end by itself.

    `event` is JSON text. `context` are fields of the handler's context. Time counts from `arrived_ns` on the monotonic clock. What the
    function prints goes to the descriptor `log`. The worker may stay for so many seconds, for another event.
    """

    def __init__(
        self,
        front: Front,
        function: ServedFunction,
        event: str,
        context: dict[str, Any],
        arrived_ns: int,
        keep_alive_s: float = 0.0,
        log: int = 2,
    ) -> None:
        self._front, self._function, self._log = front, function, log
        self._message = {
            "verb": "invoke",
            "event": event,
            "context": context,
            "started_ns": arrived_ns,
            "entered_ns": arrived_ns,
            "keep_alive_s": keep_alive_s,
        }
        self._open = contextlib.AsyncExitStack()
        self._over = False  # the worker has said so
        self._answers: asyncio.StreamReader | None = None
        self._outcome: asyncio.StreamReader | None = None

    async def __aenter__(self) -> "Invocation":
        """Hand it to a worker. Raises NotServed where there is none."""
        outcome, theirs = socket.socketpair()
        answers, written = socket.socketpair()
        try:
            with theirs, written:
                descriptors = [theirs.fileno(), NO_INPUT, self._log, self._log, written.fileno()]
                await self._front.hand(self._function, self._message, descriptors)
            self._outcome = await self._reader(outcome)
            self._answers = await self._reader(answers)
        except BaseException:  # raised again
            for connection in (outcome, answers):
                connection.close()
            await self._open.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._over:
            self._front.beside(self._ended())
        else:
            await self._open.aclose()

    async def _ended(self) -> None:
        """Return when the worker has ended, or has had its time for it."""
        assert self._outcome is not None
        async with self._open:
            with contextlib.suppress(TimeoutError, OSError):
                await asyncio.wait_for(self._outcome.read(), LEAVING_S)

    async def _reader(self, connection: socket.socket) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LONGEST)
        self._open.callback(lambda: writer.transport.abort())  # and holds the writer, which closes what it is for when it goes
        return reader

    async def next(self) -> dict[str, Any]:
        """Return the worker's next message (see respond.py). Raises WorkerEnded, or NotServed where no worker had it."""
        assert self._answers is not None and self._outcome is not None
        with contextlib.suppress(ValueError, OSError):
            line = await self._answers.readline()
            if line.endswith(b"\n"):
                found: dict[str, Any] = json.loads(line)
                self._over = "piece" not in found
                return found
        try:
            (length,) = LENGTH.unpack(await self._outcome.readexactly(LENGTH.size))
            outcome = json.loads(await self._outcome.readexactly(length))
        except (asyncio.IncompleteReadError, OSError):  # its template process ended with it
            raise WorkerEnded(-9) from None
        if "code" in outcome:
            raise NotServed(str(outcome["code"]), str(outcome["text"]))
        raise WorkerEnded(os.waitstatus_to_exitcode(int(outcome["status"])))
