"""A Unix socket on which a host answers this user's processes, by messages of wire.py."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from tidalctl.host.wire import Gone, close, peer, receive

HANDSHAKE_S = 5.0  # in which a client has to say what it wants

Answer = Callable[[socket.socket, dict[str, Any], list[int]], Awaitable[None]]


class UnixDoor:
    """Has `answer` called with each client's connection, its message and its descriptors, which are closed when that returns.

    To be opened in a running event loop. Other users' clients are not heard.
    """

    def __init__(self, listening: socket.socket, answer: Answer) -> None:
        self._listening, self._answer = listening, answer
        self._clients: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Answer from now on."""
        self._listening.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Answer nobody any more."""
        asyncio.get_running_loop().remove_reader(self._listening)

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except OSError:  # it has gone already
            return
        client = asyncio.create_task(self._client(connection))
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def _client(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(HANDSHAKE_S)
            if peer(connection)[1] != os.getuid():
                return
            with suppress(Gone):
                request, descriptors = await asyncio.to_thread(receive, connection)
                connection.settimeout(None)
                try:
                    await self._answer(connection, request, descriptors)
                finally:
                    close(descriptors)
