"""A host of `tidalctl serve`, in a process of its own, and requests to it."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from conftest import TIDALCTL, interruptible


class Reply(NamedTuple):
    """A response: its status, headers in lower case, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def pieces(self) -> list[Any]:
        """The pieces of a stream."""
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def start(self) -> str:
        return self.headers["tidalctl-start"]


class HttpHost:
    """A running host. `events` are what it has told so far."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process, self.log = process, log
        self.events: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def told(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Return what was told of a kind, when it has been told so often."""
        self.until(lambda: sum(told["event"] == event for told in self.events) >= count)
        return [told for told in self.events if told["event"] == event]

    def until(self, holds: Callable[[], Any], seconds: float = 30) -> None:
        """Return when something holds."""
        ends = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < ends and self.process.poll() is None, (self.events, self.log.read_text())
            time.sleep(0.02)

    @property
    def url(self) -> str:
        return str(self.told("listening")[0]["url"])

    def connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=timeout)

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Make a request. A body that is no bytes is sent as JSON."""
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **(headers or {})}
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, sent, given)
            response = connection.getresponse()
            return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())

    def invoke(self, event: Any, name: str = "app", **headers: str) -> Reply:
        """Have an event answered."""
        return self.ask("POST", f"/functions/{name}/invocations", event, headers)

    def status(self, name: str = "app") -> dict[str, Any]:
        return dict(self.ask("GET", f"/functions/{name}").json)

    def spare_ready(self, name: str = "app") -> None:
        """Return when a spare is ready."""
        self.until(lambda: self.status(name)["spares"])

    def processes(self) -> list[int]:
        """Return the processes that have this one as an ancestor."""
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        found = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found - {self.process.pid})


@contextlib.contextmanager
def http_host(
    folder: Path, *arguments: object, env: Mapping[str, str] | None = None, preexec: Callable[[], None] = interruptible
) -> Iterator[HttpHost]:
    """Serve until the end of the context, on a port that is free. What it and its functions print is in `host.log` of the folder.

    `preexec` is what the process does before it runs the program.
    """
    given = [str(argument) for argument in arguments]
    where = [] if "--listen" in given or "--unix" in given else ["--listen", "127.0.0.1:0"]
    log = folder / "host.log"
    with open(log, "a") as errors:
        process = subprocess.Popen(
            [*TIDALCTL, "serve", *given, *where, "--json"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            env={**os.environ, **(env or {})},
            preexec_fn=preexec,
        )
    host = HttpHost(process, log)
    try:
        host.told("listening")
        yield host
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
