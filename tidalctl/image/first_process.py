"""The processes between a launcher and the one that it has restored: the first of its namespaces, and that one's parent.

The first process has CRIU restore the image, takes over what that leaves, sets it going when it is told that the image is right, and
tells how it has ended. With it ends everything in its namespaces.
"""

import os
import signal
import struct
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from tidalctl.image.criu import last_error
from tidalctl.image.user_namespace import NEWPID, NEWUSER, map_user, may_do_all, mount_proc, unshare
from tidalctl.runtime.process.parent import end_with_parent

ENDED, FORBIDDEN, FAILED = b"e", b"n", b"c"  # a message's first byte: the process has ended, no namespaces, CRIU failed
# Signals that the launcher passes on to the restored process: all but those about a process's own children, stops and faults.
PASSED_ON = signal.valid_signals() - {
    signal.Signals[f"SIG{name}"]
    for name in "KILL STOP TSTP TTIN TTOU CHLD PIPE SEGV BUS FPE ILL ABRT TRAP SYS XFSZ".split()  # noqa: SIM905 - one line
}
STATUS = struct.Struct("!i")
LONGEST = 2000  # bytes of a message


class Restoration(NamedTuple):
    """What the first process needs: CRIU's command and the descriptors for it, the process's id, and both ways to the launcher."""

    command: Sequence[str]
    inherited: Sequence[int]
    pid: int
    go: int
    told: int


def fork_first_process(restoration: Restoration, meanwhile: Callable[[Callable[[], bool]], None]) -> int:
    """Begin to restore, and do what there is to do `meanwhile`, which is given what says whether all has ended.

    Returns the id of the process that ends with the restored one, and which that one ends with.
    """
    launcher = os.getpid()
    if pid := os.fork():
        return pid
    try:
        _wait_beside(restoration, meanwhile, launcher)
    finally:  # nothing of the launcher's goes on in here
        os._exit(1)


def _wait_beside(restoration: Restoration, meanwhile: Callable[[Callable[[], bool]], None], launcher: int) -> None:
    """Make the namespaces and their first process, and end with it."""
    _end_with(launcher)
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_IGN)  # a whole process group may be sent one, and the restored process is not in it
    try:
        user, group = os.getuid(), os.getgid()
        if may_do_all():
            unshare(NEWPID)
        else:
            unshare(NEWPID | NEWUSER)
            map_user(0, user, 0, group)
        first = os.fork()
        if not first:
            end_with_parent(signal.SIGKILL)
            mount_proc()
    except OSError as error:
        _tell(restoration, FORBIDDEN + str(error).encode())
        os._exit(1)
    if not first:
        _restore(restoration)
    for descriptor in {*restoration.inherited, restoration.go, restoration.told}:
        os.close(descriptor)
    ended: list[int] = []

    def gone() -> bool:
        if not ended and os.waitpid(first, os.WNOHANG)[0]:
            ended.append(first)
        return bool(ended)

    try:
        meanwhile(gone)
    finally:
        if not ended:
            os.waitpid(first, 0)
        os._exit(0)


def _restore(restoration: Restoration) -> NoReturn:
    """Restore, in the first process."""
    log = os.memfd_create("criu")
    try:
        code = subprocess.call(
            restoration.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=restoration.inherited, cwd="/"
        )
    except OSError as error:
        code, _ = 127, os.write(log, str(error).encode())
    if code != 0:
        _tell(restoration, FAILED + last_error(_text(log)).encode())
        os._exit(1)
    for descriptor in restoration.inherited:
        os.close(descriptor)
    if os.read(restoration.go, 1):
        try:
            os.kill(restoration.pid, signal.SIGCONT)
        except OSError as error:
            _tell(restoration, FAILED + str(error).encode())
            os._exit(1)
        _tell(restoration, ENDED + STATUS.pack(_ended(restoration.pid)))
    os._exit(0)


def _ended(pid: int) -> int:
    """Return a process's wait status when it has ended. What it leaves is reaped as well."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return status


def _text(log: int) -> str:
    size = os.lseek(log, 0, os.SEEK_END)
    return os.pread(log, LONGEST, max(size - LONGEST, 0)).decode(errors="replace")


def _tell(restoration: Restoration, message: bytes) -> None:
    with suppress(OSError):  # the launcher is gone
        os.write(restoration.told, message[:LONGEST])


def _end_with(parent: int) -> None:
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
