"""The process that is dumped: a template process that has imported its function and computed nothing, and what it does once restored.

It holds its state over weights of which none has been read, waits on a pipe, and has no socket and no second thread. Restored, it is
told by that pipe where its launcher listens, takes the request and the streams from there, reads the weights, and answers.
"""

import os
import platform
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tidalctl.artifacts.bundle.directory import open_bundle
from tidalctl.artifacts.cause import Cause
from tidalctl.host.failed_template import failed_template
from tidalctl.host.import_reads import read_at_import
from tidalctl.host.ready_template import NotForked, ready_template
from tidalctl.host.wire import receive, send
from tidalctl.host.worker import answer
from tidalctl.image.scheduling import own_settings, take_scheduling
from tidalctl.image.secrets_read import secret_read
from tidalctl.image.user_namespace import become_user
from tidalctl.runtime import answer as answers  # noqa: F401 - imported here, and by no restored process
from tidalctl.runtime import start_report  # noqa: F401
from tidalctl.runtime.process.exit import leave
from tidalctl.runtime.weights.engine import NotStarted
from tidalctl.runtime.weights.weight_stream import StreamOptions

LONGEST_ADDRESS = 4096
# torch asks for the user to name the cache of torch.compile, and keeps the name here; where it is unset, it asks once more
TORCHS_CACHE, TORCHS_QUESTION = "TORCHINDUCTOR_CACHE_DIR", "torch._inductor.runtime.cache_dir_utils"
_ARCH_GET_XCOMP_PERM, _SYS_ARCH_PRCTL, _TILES = 0x1022, 158, 1 << 18


def main() -> NoReturn:
    bundle, orders, told = Path(sys.argv[1]), int(sys.argv[2]), socket.socket(fileno=int(sys.argv[3]))
    os.set_inheritable(orders, False)
    os.set_inheritable(told.fileno(), False)
    try:
        manifest = open_bundle(bundle)
        if (reason := secret_read(manifest)) is not None:
            raise NotForked(reason)
        if manifest.environ_all:
            raise NotForked(Cause.IMAGE_ALL_VARIABLES_READ.of())
        before = own_settings()
        with asking_for_user() as asked:
            template, generators = ready_template(bundle, forked=True, streamed=StreamOptions(held=True))
        if (changed := next((name for name, value in own_settings().items() if value != before[name]), None)) is not None:
            raise NotForked(Cause.IMAGE_PROCESS_CHANGED.of(what=changed))
        if _uses_tiles():
            raise NotForked(Cause.IMAGE_COMPUTED.of(what="the processor's matrix tiles"))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's module may raise anything
        send(told, _refusal(error))
        os._exit(1)
    send(told, {"reads": sorted(manifest.import_variables), "files": read_at_import(bundle, manifest), "asked": bool(asked)})
    told.close()
    made_by = os.getuid()
    address = os.read(orders, LONGEST_ADDRESS)  # here it is dumped, and here it is restored
    os.close(orders)
    if not address:  # who had it made is gone
        os._exit(1)
    with socket.socket(socket.AF_UNIX) as launcher:
        launcher.connect(address)
        request, streams = receive(launcher)
    if int(request["user"]) != made_by:
        template.forget_variable(TORCHS_CACHE)
    become_user(int(request["user"]), int(request["group"]))
    take_scheduling(request["scheduling"])
    _make_fresh()
    generators.put_right()
    template.weights.begin(checked=int(request["checked"]))
    leave(answer(template, request, streams, again=False, handed="image"))


def _refusal(error: BaseException) -> dict[str, str]:
    """Return what is told where there can be no image."""
    if isinstance(error, NotStarted):
        error = NotForked(Cause.IMAGE_COMPUTED.of(what="its weights"))
    if isinstance(error, NotForked):
        return {"code": error.reason.code, "text": error.reason.text}
    return failed_template(error)


@contextmanager
def asking_for_user() -> Iterator[list[str]]:
    """Yield a list in which is noted by which function somebody other than tidalctl asks for the user of this process."""
    asked: list[str] = []
    names = ("getuid", "geteuid", "getgid", "getegid", "getlogin")
    before: dict[str, Callable[[], Any]] = {name: getattr(os, name) for name in names}

    def noted(name: str) -> Callable[[], Any]:
        def ask() -> Any:
            if not _is_ours(sys._getframe(1)):
                asked.append(name)
            return before[name]()

        return ask

    for name in names:
        setattr(os, name, noted(name))
    try:
        yield asked
    finally:
        for name, function in before.items():
            setattr(os, name, function)


def _is_ours(frame: FrameType) -> bool:
    """Whether tidalctl asks, or torch for the name of its cache, which is put right for another user."""
    asking = str(frame.f_globals.get("__name__", ""))
    if asking == "getpass" and frame.f_back is not None:
        return frame.f_back.f_globals.get("__name__") == TORCHS_QUESTION
    return asking.startswith("tidalctl")


def _uses_tiles() -> bool:
    """Whether this process has asked the kernel for the processor's matrix tiles, which a restore does not ask for again."""
    if platform.machine() != "x86_64":
        return False
    import ctypes

    permitted = ctypes.c_uint64()
    ctypes.CDLL(None).syscall(_SYS_ARCH_PRCTL, _ARCH_GET_XCOMP_PERM, ctypes.byref(permitted))
    return bool(permitted.value & _TILES)


def _make_fresh() -> None:
    """Make anew what each process draws for itself and what a library has drawn already: all starts from one image would share it."""
    tempfile, ssl = sys.modules.get("tempfile"), sys.modules.get("ssl")
    if tempfile is not None:
        tempfile._name_sequence = None  # type: ignore[attr-defined]
    if ssl is not None:
        ssl.RAND_add(os.urandom(64), 64.0)  # OpenSSL tells forks by their process id, which is the same in each start
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None:
        processes.current_process().authkey = os.urandom(32)
    platform._uname_cache = None  # type: ignore[attr-defined] # the host's name


if __name__ == "__main__":
    main()
