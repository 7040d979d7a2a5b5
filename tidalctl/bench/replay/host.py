"""A template host: `tidalctl serve` in a process of its own, asked over HTTP as any client asks it."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from tidalctl.artifacts.errors import TidalError
from tidalctl.bench.replay.resources import Usage, tree, used_by
from tidalctl.bench.replay.serving import Answer, Served, Serving
from tidalctl.runtime.process.parent import end_with_parent

READY_S = 900.0  # until no template is starting, at the latest
STATES = ("not started", "starting", "ready")  # of a template; another is the cause for which it can't be used
SPARE_S = 60.0
DRAIN_S = 20.0  # that the host has to end by itself
STREAM = "application/x-ndjson"


class HostServing(Serving):
    """Requests to a host that has a template for each function. `options` are further ones of `tidalctl serve`."""

    def __init__(self, functions: Mapping[str, Served], timeout_s: float, options: Sequence[str] = ()) -> None:
        self._functions, self._timeout_s = functions, timeout_s
        self._options = tuple(options)
        self._bodies = {name: json.dumps(served.request).encode() for name, served in functions.items()}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - goes with this object
        self._process: subprocess.Popen[bytes] | None = None
        self._address: tuple[str, int] = ("", 0)

    def open(self) -> None:
        named = [word for name, served in self._functions.items() for word in ("--name", f"{name}={served.subject.path}")]
        options = ["--listen", "127.0.0.1:0", "--timeout", f"{self._timeout_s:.3f}s", "--json", *self._options]
        command = [sys.executable, "-P", "-m", "tidalctl", "serve", *named, *options]
        self._process = subprocess.Popen(
            command,
            cwd=next(iter(self._functions.values())).subject.plain.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self._address = self._listening(self._process)
        threading.Thread(target=self._drain, args=(self._process,), name="host", daemon=True).start()
        self._wait_until_ready(self._process)

    def _listening(self, process: "subprocess.Popen[bytes]") -> tuple[str, int]:
        """Return where the host listens, which it says first. Raises TidalError where it ends before."""
        assert process.stdout is not None
        for line in process.stdout:
            told: dict[str, Any] = json.loads(line)
            if told["event"] == "listening":
                address = urllib.parse.urlsplit(told["url"])
                return address.hostname or "127.0.0.1", address.port or 80
        raise self._ended()

    def _wait_until_ready(self, process: "subprocess.Popen[bytes]") -> None:
        """Return when no template is starting any more; one that finds no room within --memory is made when it is asked for."""
        ends = time.monotonic() + READY_S
        while time.monotonic() < ends:
            if process.poll() is not None:
                raise self._ended()
            with contextlib.suppress(ConnectionRefusedError):  # its socket has an address before it listens
                if not any(state == "starting" for state in self._states()):
                    return
            time.sleep(0.05)
        raise TidalError(f"the host's templates were not ready within {READY_S:g} s", "replay fewer functions")

    def _states(self) -> list[str]:
        """Return the state of each template. Raises TidalError where one can't be used."""
        functions = self._get("/functions")["functions"]
        for one in functions:
            if one["state"] not in STATES:
                shown = self._functions[one["function"]].subject.shown
                raise TidalError(
                    f"the host can't serve {one['function']}: {one.get('cause') or one['state']}",
                    f"try it alone: tidalctl run {shown} --event …",
                )
        return [one["state"] for one in functions]

    def _ended(self) -> TidalError:
        return TidalError(f"the host ended: {self._last_words()}", "see: tidalctl serve --help")

    def _get(self, path: str) -> Any:
        connection = http.client.HTTPConnection(*self._address, timeout=self._timeout_s)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return json.load(connection.getresponse())

    @staticmethod
    def _drain(process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        while process.stdout.readline():
            continue

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return (errors or lines or ["it said nothing"])[-1]

    def answer(self, function: str) -> Answer:
        connection = http.client.HTTPConnection(*self._address, timeout=self._timeout_s)
        start = "none"
        try:
            connection.request(
                "POST",
                f"/functions/{urllib.parse.quote(function, safe='')}/invocations",
                self._bodies[function],
                {"Content-Type": "application/json", "Accept": f"{STREAM}, application/json"},
            )
            response = connection.getresponse()
            start = response.headers.get("Tidalctl-Start", "none")
            first = response.readline()
            first_ns = time.monotonic_ns()
            rest = response.read()
            done_ns = time.monotonic_ns()
            if response.status != http.HTTPStatus.OK:
                return Answer(start=start, done_ns=done_ns, failed=f"{response.status}: {_said(first + rest)}")
            streams = response.headers.get_content_type() == STREAM
            output = [json.loads(line) for line in (first + rest).splitlines()] if streams else json.loads(first + rest)
        except TimeoutError:
            return Answer(start=start, done_ns=time.monotonic_ns(), failed=f"no answer within {self._timeout_s:g} s")
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Answer(start=start, done_ns=time.monotonic_ns(), failed=f"{type(error).__name__}: {error}")
        finally:
            connection.close()
        return Answer(
            start=start,
            first_ns=first_ns if first else None,
            done_ns=done_ns,
            output=output,
            strategy=response.headers.get("Tidalctl-Strategy"),
            cause=response.headers.get("Tidalctl-Cause"),
        )

    def wait_for_spare(self, function: str) -> None:
        """Return when a worker is ready for the function's next request. Raises TidalError where none becomes ready."""
        ends = time.monotonic() + SPARE_S
        while time.monotonic() < ends:
            if self._get(f"/functions/{urllib.parse.quote(function, safe='')}")["spares"]:
                return
            time.sleep(0.05)
        raise TidalError(f"the host made no spare for {function}", "see: tidalctl serve --help")

    def roots(self) -> list[int]:
        return [] if self._process is None or self._process.poll() is not None else [self._process.pid]

    def used(self) -> Usage:
        return used_by(tree(self.roots()))

    def hold(self, memory: Mapping[int, int]) -> None:
        """A host keeps to its bound by itself."""

    def close(self) -> None:
        """Ask the host to end, as SIGTERM does; kill it where it does not."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(DRAIN_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _end_with_parent() -> None:
    """Have this child told to end when the replay is killed; a host does not see it otherwise, as an instance does by its socket."""
    end_with_parent(signal.SIGTERM)


def _said(body: bytes) -> str:
    """What the body of an error says, in a line."""
    return " ".join(body.decode(errors="replace").split())[:200]
