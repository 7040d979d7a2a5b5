"""The host's front process: takes requests on a Unix socket, and hands each to the template process of its bundle.

It never imports torch, nor a user's module. It ends when nothing was asked for as long as the clients wanted it kept, and with it
everything that it has started.
"""

import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from tidalctl.host.folder import SOCKET
from tidalctl.host.kept_template import KeptTemplate
from tidalctl.host.wire import Gone, close, peer_uid, receive, send

LOOK_EVERY_S = 1.0


class Front:
    """Answers clients. `templates` are those that are kept, by the path of their bundle."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._selector = selectors.DefaultSelector()
        self._selector.register(listening, selectors.EVENT_READ)
        self.templates: dict[str, KeptTemplate] = {}
        self._ending = False
        self._idle_since = time.monotonic()
        self._keep_s = 0.0

    def serve(self) -> None:
        """Answer until nobody has asked for long enough, or `stop` is asked for."""
        while not self._ending:
            for key, _ in self._selector.select(LOOK_EVERY_S):
                if key.data is None:
                    self._accept()
                else:
                    self._hear(key.data)
            self._drop_idle()
        for kept in list(self.templates.values()):
            self._drop(kept)

    def end(self, *_: object) -> None:
        """End after this turn."""
        self._ending = True

    def _accept(self) -> None:
        connection, _ = self._listening.accept()
        connection.settimeout(5.0)
        if peer_uid(connection) != os.getuid():
            connection.close()
            return
        try:
            request, descriptors = receive(connection)
            connection.settimeout(None)
            self._answer(connection, request, descriptors)
        except Gone:
            pass
        finally:
            connection.close()

    def _answer(self, connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
        verb = request.get("verb")
        try:
            if verb == "run" and len(descriptors) == 3:
                self._run(connection, request, descriptors)
            elif verb == "ps":
                send(connection, {"pid": os.getpid(), "templates": [kept.status() for kept in self.templates.values()]})
            elif verb == "stop":
                bundle = request.get("bundle")
                ended = [kept for path, kept in self.templates.items() if bundle in (None, path)]
                for kept in ended:
                    self._drop(kept)
                self._ending = self._ending or bundle is None
                send(connection, {"stopped": [kept.bundle for kept in ended]})
        finally:
            close(descriptors)

    def _run(self, connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
        bundle = str(request["bundle"])
        kept = self.templates.get(bundle)
        if kept is not None and kept.outdated():
            self._drop(kept)
            kept = None
        if kept is None:
            kept = self.templates[bundle] = KeptTemplate(bundle, request["environ"], request["directory"])
            self._selector.register(kept.orders, selectors.EVENT_READ, kept)
        kept.keep_s = max(kept.keep_s, float(request["keep_s"]))
        self._keep_s = max(self._keep_s, kept.keep_s)
        send(connection, {"taken": True})
        kept.ask(connection, request, descriptors)

    def _hear(self, kept: KeptTemplate) -> None:
        try:
            kept.heard(receive(kept.orders)[0])
        except Gone:
            if kept.cause is None:
                self._drop(kept)
            else:  # it stays, to say why
                self._selector.unregister(kept.orders)

    def _drop(self, kept: KeptTemplate) -> None:
        if kept.orders.fileno() in self._selector.get_map():
            self._selector.unregister(kept.orders)
        del self.templates[kept.bundle]
        kept.end()

    def _drop_idle(self) -> None:
        now = time.monotonic()
        for kept in list(self.templates.values()):
            if kept.idle_s(now) > kept.keep_s:
                self._drop(kept)
        if self.templates:
            self._idle_since = now
        elif now - self._idle_since > min(self._keep_s, 60.0) + LOOK_EVERY_S:
            self._ending = True


def main() -> None:
    listening = socket.socket(fileno=int(sys.argv[1]))
    folder = Path(sys.argv[2])
    front = Front(listening)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, front.end)
    try:
        front.serve()
    finally:
        (folder / SOCKET).unlink(missing_ok=True)
        listening.close()


if __name__ == "__main__":
    main()
