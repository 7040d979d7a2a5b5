"""`tidalctl serve`: a host in the foreground, which answers HTTP until it is told to end."""

import asyncio
import contextlib
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from tidalctl.artifacts.errors import TidalError
from tidalctl.host.folder import host_folder, serving_socket
from tidalctl.host.front import LOOK_EVERY_S, Front, look_after
from tidalctl.host.http.access import Access
from tidalctl.host.http.answer import ServeOptions, Serving
from tidalctl.host.http.app import HostApp, make_app
from tidalctl.host.http.lambda_api import LambdaApi
from tidalctl.host.http.limits import Limits
from tidalctl.host.kept_template import NotServed
from tidalctl.host.process_properties import set_dumpable
from tidalctl.host.served_function import ServedFunction
from tidalctl.host.unix_door import UnixDoor
from tidalctl.host.wire import send

BACKLOG = 512


class HostSettings(NamedTuple):
    """What a host is started with. `bundles` by the functions' names; `address` is a host and a port, or None for `unix` alone."""

    bundles: Mapping[str, str]
    address: tuple[str, int] | None
    unix: Path | None
    token: str | None
    allowed_hosts: tuple[str, ...]
    spares: int
    concurrency: int
    queue: int
    memory: int | None
    options: ServeOptions


def serve_host(settings: HostSettings, tell: Callable[[dict[str, Any]], None]) -> int:
    """Serve until SIGTERM or SIGINT. `tell` is called with what happens. Returns the exit code. Raises TidalError."""
    set_dumpable(False)
    with contextlib.ExitStack() as opened:
        listening = [opened.enter_context(_listen(*settings.address))] if settings.address is not None else []
        if settings.unix is not None:
            listening.append(opened.enter_context(_listen_unix(settings.unix)))
        asked = opened.enter_context(_asked_by_ps())
        return asyncio.run(_Host(settings, tell, listening, asked).serve())


@contextlib.contextmanager
def _asked_by_ps() -> Iterator[socket.socket | None]:
    """Listen for `tidalctl ps`. A host goes without where there can't be a folder for that."""
    with contextlib.ExitStack() as opened:
        try:
            asked = opened.enter_context(serving_socket(host_folder()))
        except (TidalError, OSError) as error:
            print(f"note: tidalctl ps won't show this host: {error}", file=sys.stderr)
            asked = None
        yield asked


class _Server(uvicorn.Server):
    """Signals are the host's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Host:
    def __init__(
        self,
        settings: HostSettings,
        tell: Callable[[dict[str, Any]], None],
        listening: list[socket.socket],
        asked: socket.socket | None,
    ) -> None:
        self._settings, self._tell, self._listening = settings, tell, listening
        self._door = UnixDoor(asked, self._say) if asked is not None else None

    async def serve(self) -> int:
        settings = self._settings
        self._front = front = Front(settings.spares, settings.memory, self._told)
        self._serving = Serving(front, Limits(settings.concurrency, settings.queue), settings.options)
        app = HostApp(self._serving)
        routes = make_app(app, LambdaApi(app).routes())
        guarded = Access(routes, settings.token, settings.allowed_hosts)
        config = uvicorn.Config(guarded, lifespan="off", log_config=None, server_header=False, ws="none", access_log=False)
        self._server = _Server(config)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._look_at_bundles)
        directory = os.getcwd()
        for name, bundle in settings.bundles.items():
            front.add(name, bundle, os.environ, directory)
        watching = [asyncio.create_task(self._make_ready(function)) for function in front.functions.values()]
        watching.append(asyncio.create_task(look_after(front)))
        if self._door is not None:
            self._door.open()
        serving = asyncio.create_task(self._server.serve(sockets=self._listening))
        for connection in self._listening:
            self._tell({"event": "listening", "url": _url(connection), "pid": os.getpid()})
        try:
            await serving
        finally:
            if self._door is not None:
                self._door.close()
            await front.end()
            for task in watching:
                task.cancel()
        return 0

    async def _say(self, connection: socket.socket, message: dict[str, Any], _: list[int]) -> None:
        """Answer `tidalctl ps`."""
        if message.get("verb") == "ps":
            urls = [_url(listening) for listening in self._listening]
            send(connection, {"pid": os.getpid(), "urls": urls, "templates": self._front.status()})

    def _end(self) -> None:
        """End when what is being answered is; at the second signal at once."""
        if self._serving.draining:
            self._server.force_exit = True
            return
        self._serving.draining = True
        self._server.should_exit = True
        self._tell({"event": "draining", "running": self._serving.limits.running})

    def _look_at_bundles(self) -> None:
        for function in self._front.functions.values():
            if function.current is None or function.current.outdated() or function.current.cause is not None:
                self._tell({"event": "reloading", "function": function.name})
                self._front.beside(function.reload())

    async def _make_ready(self, function: ServedFunction) -> None:
        """Have a function's template made as soon as there is room for it, unless it is asked for before."""
        waits = False
        while function.current is None:
            try:
                if self._front.has_room(function):
                    return
            except NotServed as refused:
                self._tell({"event": "failed", **_named(function), "cause": refused.code, "text": refused.text})
                return
            if not waits:
                self._tell({"event": "waiting", **_named(function)})
            waits = True
            await asyncio.sleep(LOOK_EVERY_S)

    def _told(self, event: str, function: ServedFunction) -> None:
        """Tell what has happened to a function's latest template."""
        template = function.latest
        assert template is not None
        told: dict[str, Any] = {"event": event, **_named(function), "pid": template.pid}
        if template.cause is not None:
            told |= {"cause": template.cause.code, "text": template.cause.text}
        elif event == "ready":
            spawned = template.spawned or {}
            told |= {"after_s": round(template.ready_after_s, 3), "workers": "spawned" if spawned else "forked"}
            told |= {"cause": spawned.get("code"), "text": spawned.get("text")}
        self._tell(told)


def _named(function: ServedFunction) -> dict[str, Any]:
    return {"function": function.name, "bundle": function.bundle}


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises TidalError where the address can't be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, number, _, address = found[0]
        listening = socket.socket(family, kind, number)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        raise TidalError(
            f"can't listen on {host}:{port}: {error.strerror or error}", "another port: --listen 127.0.0.1:0 takes a free one"
        ) from None
    return listening


@contextlib.contextmanager
def _listen_unix(path: Path) -> Iterator[socket.socket]:
    """Listen on a Unix socket that this user alone may use, until the end. One that nobody listens on any more is removed first."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listening:
        if path.exists() and stat.S_ISSOCK(path.lstat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
                try:
                    asked.connect(str(path))
                except OSError:
                    path.unlink(missing_ok=True)  # of a host that was killed
                else:
                    raise TidalError(f"{path} is another host's", "end that one, or give another path with --unix")
        mask = os.umask(0o177)
        try:
            listening.bind(str(path))
            listening.listen(BACKLOG)
        except OSError as error:
            raise TidalError(f"can't listen on {path}: {error.strerror or error}", "another path: --unix PATH") from None
        finally:
            os.umask(mask)
        try:
            yield listening
        finally:
            path.unlink(missing_ok=True)


def _url(connection: socket.socket) -> str:
    address = connection.getsockname()
    if connection.family == socket.AF_UNIX:
        return f"unix:{address}"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"


def tell_plainly(event: Mapping[str, Any]) -> None:
    """Say on standard error what has happened."""
    texts = {
        "listening": "listening on {url}",
        "ready": "{function}: ready after {after_s:.2f} s",
        "failed": "{function}: can't be served: {text} ({cause})",
        "ended": "{function}: {text} ({cause})",
        "waiting": "{function}: waits for room within --memory",
        "evicted": "{function}: its template went for memory",
        "draining": "ending when {running} running events have ended; a second signal ends them",
        "reloading": "{function}: the bundle is another one, or failed: a new template is being made",
    }
    text = texts[event["event"]].format(**event)
    if event["event"] == "ready" and event["cause"]:
        text += f"; its workers are processes of their own: {event['text']} ({event['cause']})"
    print(text, file=sys.stderr, flush=True)
