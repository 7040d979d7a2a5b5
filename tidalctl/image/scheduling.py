"""What a process has of its caller and a restore brings back from the dump: ignored signals, priority, and when memory is short."""

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

OOM = "/proc/self/oom_score_adj"


def read_scheduling() -> dict[str, Any]:
    """Return what this process has of its caller."""
    ignored = [number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN]
    with open(OOM, encoding="ascii") as file:
        score = file.read().strip()
    return {"ignored": sorted(set(ignored) - {signal.SIGPIPE, signal.SIGXFSZ}), "nice": os.nice(0), "oom_score": score}


def take_scheduling(caller: Mapping[str, Any]) -> None:
    """Take on what a caller has, as far as this process may: nobody may raise his own priority."""
    for number in signal.valid_signals():
        here = signal.getsignal(number)
        if number in caller["ignored"]:
            signal.signal(number, signal.SIG_IGN)
        elif here == signal.SIG_IGN and number not in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
            signal.signal(number, signal.SIG_DFL)
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, caller["nice"])
    with suppress(OSError), open(OOM, "w", encoding="ascii") as file:
        file.write(caller["oom_score"])
