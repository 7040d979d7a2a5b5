"""`tidalctl run --keep`: the machine's host answers, which is started if there is none. Imports little, as each call pays for it."""

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidalctl.artifacts.bundle import MANIFEST
from tidalctl.artifacts.errors import TidalError
from tidalctl.host.caller_properties import caller_properties
from tidalctl.host.folder import LOCK, LOG, SERVING, SOCKET, connect, host_folder
from tidalctl.host.wire import Gone, receive, send


def run_kept(fields: Mapping[str, Any], keep_s: float, started_ns: int, entered_ns: int) -> int | None:
    """Have the host answer with the fields of RunOptions. Return the exit code, or None where this process has to answer itself.

    `started_ns` and `entered_ns` are when this process was started and entered, on the monotonic clock.
    """
    request = {
        "verb": "run",
        "bundle": os.path.realpath(fields["bundle"]),
        "fields": dict(fields),
        "keep_s": keep_s,
        "started_ns": started_ns,
        "entered_ns": entered_ns,
        **caller_properties(),
    }
    if not os.path.isfile(os.path.join(request["bundle"], MANIFEST)):
        return None  # an ordinary start says what is wrong
    if None in (sys.stdin, sys.stdout, sys.stderr):
        return None  # a descriptor that is not open can't be handed on
    for _ in range(2):  # a host that ends at this moment is not there any more
        with _connected(host_folder()) as connection:  # closing it interrupts the worker
            try:
                send(connection, request, (0, 1, 2))
                receive(connection)  # the host has it
            except Gone:
                continue
            return _answer(connection)
    print("note: started without the host: it ended before it took the event", file=sys.stderr)
    return None


def _answer(connection: socket.socket) -> int | None:
    """Return the worker's exit code, or None where an ordinary start is to answer. Raises TidalError where the host is gone."""
    try:
        answer, _ = receive(connection)
    except Gone:  # the event may have been answered in part: it is not run again
        hint = "see whether the event has had effects, and run it again"
        raise TidalError("the host ended while it answered", hint) from None
    if "status" in answer:
        return _exit_code(int(answer["status"]))
    print(f"note: started without the host: {answer['text']} ({answer['code']})", file=sys.stderr)
    return None


def ask_host(message: Mapping[str, Any], name: str = SOCKET) -> dict[str, Any] | None:
    """Return what the host says to a message, or None where there is none. `name` is that of its socket."""
    connection = connect(host_folder(), name)
    if connection is None:
        return None
    with connection:
        try:
            send(connection, dict(message))
            return receive(connection)[0]
        except Gone:
            return None


def ask_serving() -> list[dict[str, Any]]:
    """Return what each host that answers HTTP says of itself. Sockets of such that were killed are removed."""
    told = []
    for path in sorted(host_folder().glob(SERVING)):
        answer = ask_host({"verb": "ps"}, path.name)
        if answer is not None:
            told.append(answer)
        else:
            path.unlink(missing_ok=True)
    return told


def _connected(folder: Path) -> socket.socket:
    """Return a connection to the host, which is started where there is none. One client starts it, and the others wait for that."""
    found = connect(folder)
    if found is not None:
        return found
    with open(folder / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = connect(folder)
        if found is not None:
            return found
        (folder / SOCKET).unlink(missing_ok=True)  # of a host that was killed
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with listening:
            listening.bind(str(folder / SOCKET))
            listening.listen(64)
            _start_host(folder, listening)
    found = connect(folder)
    if found is None:
        raise TidalError("the host did not start", f"what it said: {folder / LOG}; or run without --keep")
    return found


def _start_host(folder: Path, listening: socket.socket) -> None:
    descriptor = listening.fileno()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    log = os.open(folder / LOG, flags, 0o600)
    try:
        subprocess.Popen(
            [sys.executable, "-P", "-m", "tidalctl.host.kept_host", str(descriptor), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(descriptor,),
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(log)


def _exit_code(status: int) -> int:
    """Return the exit code for a worker's wait status. One that was killed ends this process as the signal would have."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        raise TidalError(
            f"the function's process was killed by signal {-code}", "whether it is so without the host, too: run without --keep"
        )
    return code
