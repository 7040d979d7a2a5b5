"""Properties that CRIU restores as they were in the dump, and that must be the caller's: ignored signals, priority, OOM score."""

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tidalctl.host.process_limits import read_limits

OOM = "/proc/self/oom_score_adj"
PYTHONS = frozenset((signal.SIGPIPE, signal.SIGXFSZ))  # which Python ignores by itself


def ignored_signals() -> list[int]:
    """Return the signals that this process ignores, and not every Python process."""
    return sorted(n for n in signal.valid_signals() - PYTHONS if signal.getsignal(n) == signal.SIG_IGN)


def read_scheduling() -> dict[str, Any]:
    """Return what this process has of its caller."""
    with open(OOM, "rb") as file:
        score = file.read().decode().strip()
    return {"ignored": ignored_signals(), "nice": os.nice(0), "policy": os.sched_getscheduler(0), "oom_score": score}


def take_scheduling(caller: Mapping[str, Any]) -> None:
    """Take on what a caller has, as far as this process may: nobody may raise his own priority.

    A signal for which the function's imports have set a handler keeps it.
    """
    for number in signal.valid_signals() - PYTHONS:
        here = signal.getsignal(number)
        if number in caller["ignored"] and here in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, signal.SIG_IGN)
        elif here == signal.SIG_IGN and number not in caller["ignored"]:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    with suppress(OSError):
        os.sched_setscheduler(0, caller["policy"], os.sched_param(0))
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, caller["nice"])
    with suppress(OSError), open(OOM, "wb", buffering=0) as file:
        file.write(caller["oom_score"].encode())


def own_settings() -> dict[str, Any]:
    """Return what a restored process takes on of its caller, so that imports may not change it; by the words that name it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "the working directory": os.getcwd(),
        "the umask": umask,
        "resource limits": read_limits(),
        "the priority": (os.nice(0), os.sched_getscheduler(0)),
        "which signals are ignored": ignored_signals(),
    }
