"""A start from a process image: restores it beside this process, hands it the event and the streams, and ends as it does.

Imports little, as each start pays for it: no torch, no msgspec, no typer.
"""

import functools
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from tidalctl.artifacts.bundle import IMAGE_FOLDER
from tidalctl.artifacts.errors import TidalError
from tidalctl.host.caller_properties import caller_properties
from tidalctl.host.wire import Gone, peer, send
from tidalctl.image.checked_ahead import CheckedAhead
from tidalctl.image.conditions import Refusal, image_mismatch, untrusted_image, usable_criu
from tidalctl.image.criu import restore_command
from tidalctl.image.first_process import ENDED, FAILED, FORBIDDEN, LONGEST, PASSED_ON, STATUS, Restoration, fork_first_process
from tidalctl.image.manifest import ImageManifest, read_manifest
from tidalctl.image.scheduling import read_scheduling

if TYPE_CHECKING:
    from tidalctl.artifacts.cause import Reason

RESTORED_WITHIN_S = 30.0


class NotRestored(Exception):
    """The image can't be used for this start. `refusal` names the cause."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal[0])


def run_image(fields: Mapping[str, Any], started_ns: int, entered_ns: int) -> int:
    """Answer an event with the fields of RunOptions from the bundle's image. Returns the exit code, or ends by the same signal.

    Raises NotRestored where this process has to answer itself, before anything was answered. NoImage where there is none.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        raise NotRestored(("image-not-restored", {"error": "a standard stream is closed, and can't be handed on"}))
    bundle = Path(fields["bundle"])
    try:
        caller = {**caller_properties(), "scheduling": read_scheduling()}
    except OSError as error:  # the working directory is gone
        raise NotRestored(("image-not-restored", {"error": error})) from None
    try:
        manifest = read_manifest(bundle)
    except PermissionError:
        raise NotRestored(("image-not-readable", {})) from None
    criu = usable_criu(os.environ)
    refusal = untrusted_image(bundle, manifest) or image_mismatch(bundle, manifest, os.environ)
    if refusal is not None or not isinstance(criu, str):
        raise NotRestored(refusal or criu)  # type: ignore[arg-type]
    with _Restoring(bundle, manifest, criu) as restoring:
        restoring.check_digests()
        connection = restoring.go()
        request = {
            "verb": "run",
            "fields": dict(fields),
            "start": "image",
            "started_ns": started_ns,
            "entered_ns": entered_ns,
            **caller,
            "user": os.getuid(),
            "group": os.getgid(),
            "checked": restoring.stop_ahead(),
        }
        with connection:
            try:
                send(connection, request, (0, 1, 2))
            except Gone as error:
                raise NotRestored(("image-not-restored", {"error": error})) from None
        return restoring.ended()


class _Restoring:
    """A process that is being restored, from when CRIU is called until it has ended."""

    def __init__(self, bundle: Path, manifest: ImageManifest, criu: str) -> None:
        self._folder, self._manifest = (bundle / IMAGE_FOLDER).absolute(), manifest
        self._check([name for name in manifest.files if not name.startswith("pages-")])  # CRIU reads them at once
        address = b"\0tidalctl-" + os.urandom(16).hex().encode()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(address)
        self._listening.listen(1)
        orders, give_order = os.pipe()
        go, self._go = os.pipe()
        self._told, told = os.pipe()
        os.write(give_order, address)
        command = restore_command(criu, str(self._folder), orders, manifest.pipe)
        self._ahead = CheckedAhead()
        child_ended = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or nobody could wait for a child
        restoration = Restoration(command, [orders], manifest.pid, go, told)
        image = [self._folder / name for name in manifest.files]
        work = functools.partial(self._ahead.work, bundle, image, manifest.touched, manifest.groups)
        self._process = fork_first_process(restoration, work)
        for descriptor in (orders, give_order, go, told):
            os.close(descriptor)
        self._restored = 0  # process id
        heard = [n for n in PASSED_ON if signal.getsignal(n) != signal.SIG_IGN]
        self._handlers = {signal.SIGCHLD: child_ended}
        self._handlers |= {number: signal.signal(number, self._pass_on) for number in heard}

    def __enter__(self) -> "_Restoring":
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._listening.close()
        for descriptor in (self._go, self._told):
            if descriptor >= 0:
                os.close(descriptor)
        if self._process:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)

    def check_digests(self) -> None:
        """Raise NotRestored unless the pages are what was written: before any of it is executed."""
        self._check([name for name in self._manifest.files if name.startswith("pages-")])

    def _check(self, names: list[str]) -> None:
        for name in names:
            digest = blake3(max_threads=blake3.AUTO)
            try:
                digest.update_mmap(self._folder / name)
            except OSError:
                raise NotRestored(("image-spoiled", {"file": name})) from None
            if digest.hexdigest() != self._manifest.files[name][1]:
                raise NotRestored(("image-spoiled", {"file": name}))

    def go(self) -> socket.socket:
        """Have the restored process set going. Returns its connection, or raises NotRestored."""
        with suppress(BrokenPipeError):  # CRIU has failed, which is said below
            os.write(self._go, b"g")
        until = time.monotonic() + RESTORED_WITHIN_S
        while True:
            heard, _, _ = select.select([self._listening.fileno(), self._told], [], [], max(until - time.monotonic(), 0))
            if self._told in heard:
                raise NotRestored(self._refusal(os.read(self._told, LONGEST)))
            if not heard:
                raise NotRestored(("image-not-restored", {"error": f"it took more than {RESTORED_WITHIN_S:.0f} s"}))
            connection, _ = self._listening.accept()
            pid, user = peer(connection)
            if user == os.getuid():
                self._restored = pid
                return connection
            connection.close()

    def stop_ahead(self) -> int:
        """Return how many groups of weights were read and checked meanwhile. From now on the restored process does that."""
        return self._ahead.stop()

    def _refusal(self, said: bytes) -> Refusal:
        kind, text = said[:1], said[1:].decode(errors="replace")
        if kind == FORBIDDEN:
            return "image-namespaces-forbidden", {"error": text}
        return "image-not-restored", {"error": text if kind == FAILED else "it ended before it had the event"}

    def ended(self) -> int:
        """Return the exit code of the restored process when it has ended."""
        said = os.read(self._told, LONGEST)
        os.waitpid(self._process, 0)
        self._process = 0
        if said[:1] != ENDED:
            raise TidalError("the restored process is gone", "see whether the event has had effects, and run it again")
        code = os.waitstatus_to_exitcode(STATUS.unpack(said[1:])[0])
        if code < 0:  # as it ended, so does this process
            with suppress(OSError):
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        return code

    def _pass_on(self, number: int, frame: object) -> None:
        if self._restored:
            os.kill(self._restored, number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        elif number not in (signal.SIGCONT, signal.SIGWINCH, signal.SIGURG):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def usable_here(bundle: Path, manifest: ImageManifest) -> "Reason | None":
    """Return why a start in this process's environment would not use an image, or None."""
    from tidalctl.artifacts.cause import Cause

    criu = usable_criu(os.environ)
    refusal = (
        criu if not isinstance(criu, str) else untrusted_image(bundle, manifest) or image_mismatch(bundle, manifest, os.environ)
    )
    return Cause.by_code(refusal[0]).of(**refusal[1]) if refusal is not None else None
