"""What a worker must have of its caller and not of the template that it is a fork of, and what of the template must be the caller's."""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.host.import_environment import other_variable
from tidalctl.host.process_limits import set_limits
from tidalctl.runtime.process.any_character import print_any_character
from tidalctl.runtime.process.parent import end_with_parent

_PR_SET_DUMPABLE = 4
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, which may have ended already."""
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def set_dumpable(dumpable: bool) -> None:
    """Say whether other processes of this user may look into this one's memory, as any process's."""
    _LIBC.prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def environment_mismatch(manifest: Manifest, template: Mapping[str, str], caller: Mapping[str, str]) -> Reason | None:
    """Return the first variable that imports have read and that is not the caller's, or None."""
    other = other_variable(manifest.import_variables, template, caller, every=manifest.environ_all)
    return Cause.TEMPLATE_ENVIRONMENT_DIFFERS.of(name=other) if other is not None else None


def take_over(request: Mapping[str, Any], streams: list[int]) -> None:
    """Take on what the caller has: descriptors 0 to 2, and environment, directory, umask and limits where the request says so."""
    print_any_character()  # while the stream is what it was when it was opened: a log, where its position can be asked for
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            by_line = not stream.write_through and (stream is sys.stderr or stream.isatty())  # type: ignore[union-attr]
            stream.reconfigure(line_buffering=by_line)  # type: ignore[union-attr]
    if "environ" not in request:
        return
    environ = dict(request["environ"])
    for name in [name for name in os.environ if name not in environ]:
        del os.environ[name]
    os.environ.update(environ)
    os.chdir(request["directory"])
    os.umask(request["umask"])
    set_limits(request["limits"])
