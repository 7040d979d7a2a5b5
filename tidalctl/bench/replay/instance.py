"""An instance: a child process that has a function of its own and answers one event after the other, told through a socket."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

from tidalctl.bench.processes import CLOCK
from tidalctl.bench.replay.resources import Usage, wait_for
from tidalctl.bench.replay.serving import Served

FD = "FD"  # stands in a command for the number of the socket


class NoAnswer(Exception):
    """The process did not answer: it ended, or took too long. The text says which."""


class Instance:
    """One such process. It is spawned at once, answers one request at a time, and is gone after `kill` and `reap`."""

    def __init__(self, command: list[str], cwd: str) -> None:
        """Spawn the command in a directory."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - goes with this object
        self._socket, theirs = socket.socketpair()
        with theirs:
            words = [str(theirs.fileno()) if word == FD else word for word in command]
            self._process = subprocess.Popen(
                words,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._replies = self._socket.makefile("rb")
        self.pid = self._process.pid
        self.idle_since = 0.0  # by the monotonic clock

    def ask(self, request: bytes, timeout_s: float) -> dict[str, Any]:
        """Send a request, which is one line, and return the reply. Raises NoAnswer."""
        alarm = time.monotonic() + timeout_s
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(request)
            self._socket.settimeout(max(alarm - time.monotonic(), 0.001))
            reply = self._replies.readline()
        except TimeoutError:
            raise NoAnswer(f"no answer within {timeout_s:g} s") from None
        except OSError:  # the other end is closed
            reply = b""
        if not reply.endswith(b"\n"):
            raise NoAnswer(self._last_words())
        found: dict[str, Any] = json.loads(reply)
        return found

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"the process ended: {lines[-1]}" if lines else "the process ended"

    def kill(self) -> None:
        """Kill the process and what is left of its group, and wait until it is gone. `reap` is still to come."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def reap(self) -> Usage:
        """Let go of a process that is gone. Return what it has used. To be called once."""
        self._process.returncode, used = wait_for(self.pid)
        self._socket.close()
        return used


def plain_command(served: Served) -> list[str]:
    """A plain interpreter, with nothing of tidalctl in it but the clock and the context."""
    plain = served.subject.plain
    place = (plain.root, plain.source, plain.module, plain.handler)
    return [sys.executable, str(CLOCK), FD, *place, "-", "", "encode" if plain.encode else "", plain.shape]


def bundle_command(served: Served) -> list[str]:
    """The same function from its bundle, by `load_bundle`."""
    return [sys.executable, "-P", "-m", "tidalctl.bench.replay.bundle_instance", FD, str(served.subject.path)]
