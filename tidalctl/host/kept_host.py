"""The host of `tidalctl run --keep`: takes requests of this user's processes on a Unix socket.

It ends when nothing was asked for as long as the clients wanted it kept.
"""

import asyncio
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tidalctl.host.folder import SOCKET
from tidalctl.host.front import LOOK_EVERY_S, Front
from tidalctl.host.kept_template import NotServed
from tidalctl.host.process_properties import set_dumpable
from tidalctl.host.unix_door import UnixDoor
from tidalctl.host.wire import send

LONGEST_WITHOUT_TEMPLATE_S = 60.0


class KeptHost:
    """Answers clients on a listening socket, until `stop` is asked for or everything has been idle for long enough."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._front = Front()
        self._idle_since = time.monotonic()
        self._keep_s = 0.0

    async def serve(self) -> None:
        """Answer until the end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._front.ended.set)
        door = UnixDoor(self._listening, self._answer)
        door.open()
        while not self._front.ended.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._front.ended.wait(), LOOK_EVERY_S)
            await self._end_idle()
        door.close()
        await self._front.end()

    async def _answer(self, connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
        verb = request.get("verb")
        if verb == "run" and len(descriptors) == 3:
            await self._run(connection, request, descriptors)
        elif verb == "ps":
            send(connection, {"pid": os.getpid(), "templates": self._front.status()})
        elif verb == "stop":
            bundle = request.get("bundle")
            ended = [function for path, function in self._front.functions.items() if bundle in (None, path)]
            for function in ended:
                await self._front.drop(function)
            send(connection, {"stopped": [function.bundle for function in ended]})
            if bundle is None:
                self._front.ended.set()

    async def _run(self, connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
        bundle = str(request["bundle"])
        function = self._front.functions.get(bundle)
        if function is None:
            function = self._front.add(bundle, bundle, request["environ"], request["directory"], follow=True)
        function.keep_s = max(function.keep_s, float(request["keep_s"]))
        self._keep_s = max(self._keep_s, function.keep_s)
        send(connection, {"taken": True})
        try:
            await self._front.hand(function, request, [connection.fileno(), *descriptors])
        except NotServed as refused:
            send(connection, {"code": refused.code, "text": refused.text})

    async def _end_idle(self) -> None:
        now = time.monotonic()
        await self._front.look()
        for function in list(self._front.functions.values()):
            if function.idle_s(now) > function.keep_s:
                await self._front.drop(function)
        if self._front.functions:
            self._idle_since = now
        elif now - self._idle_since > min(self._keep_s, LONGEST_WITHOUT_TEMPLATE_S) + LOOK_EVERY_S:
            self._front.ended.set()


def main() -> None:
    listening, folder = socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2])
    os.set_inheritable(listening.fileno(), False)
    set_dumpable(False)
    try:
        asyncio.run(KeptHost(listening).serve())
    finally:
        (folder / SOCKET).unlink(missing_ok=True)
        listening.close()


if __name__ == "__main__":
    main()
