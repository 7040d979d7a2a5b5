"""Where a template process has its workers from: forks of itself, or processes that are started ahead.

Both come up with one end of a socket, by which they are handed their one request.
"""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from tidalctl.artifacts.bundle.manifest import Manifest


class WorkerSource(Protocol):
    """Makes workers. `kind` is what one is called that is made for a request; `immediate` whether it can take that at once.

    `in_fork` closes what a fork has of its parent and is not to have.
    """

    kind: str
    immediate: bool
    manifest: Manifest
    in_fork: Callable[[], None]

    def start(self, mine: socket.socket, theirs: socket.socket, *, ahead: bool) -> int:
        """Return the process id of a new worker, which has its request from `theirs`. The other end is not to be the worker's."""
        ...


class ForkedWorkers:
    """Forks of this process. `serve` is what a fork does for the rest of its life."""

    kind = "fork"
    immediate = True

    def __init__(self, manifest: Manifest, serve: Callable[[socket.socket, bool], None]) -> None:
        self.manifest = manifest
        self.in_fork: Callable[[], None] = lambda: None
        self._serve = serve

    def start(self, mine: socket.socket, theirs: socket.socket, *, ahead: bool) -> int:
        pid = os.fork()
        if not pid:
            try:
                self.in_fork()
                mine.close()
                self._serve(theirs, ahead)
            except BaseException:  # noqa: BLE001 - what is wrong with it is told where its output goes
                traceback.print_exc()
            finally:
                os._exit(1)
        return pid


class SpawnedWorkers:
    """Processes that import the function themselves, each before its request comes: for what can't be forked."""

    kind = "spawn"
    immediate = False

    def __init__(self, bundle: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        self.in_fork: Callable[[], None] = lambda: None
        self._bundle = bundle

    def start(self, mine: socket.socket, theirs: socket.socket, *, ahead: bool) -> int:
        command = [sys.executable, "-P", "-m", "tidalctl.host.spawned_worker", str(self._bundle), str(theirs.fileno())]
        command.append(str(os.getpid()))
        theirs.set_inheritable(True)
        return os.posix_spawn(sys.executable, command, os.environ)


def signal_worker(pid: int, number: int) -> None:
    """Send a signal to a worker and to all that it has started."""
    for send_to in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            send_to(pid, number)


def kill_group(pid: int) -> None:
    """Kill what a worker that has ended has left in its process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
