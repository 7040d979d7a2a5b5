"""`tidalctl run`: answer one event from a bundle."""

import sys
import time
from typing import Any

from tidalctl.runtime.launch import RunOptions
from tidalctl.runtime.launch import run as run_bundle
from tidalctl.runtime.leave import watch_writes
from tidalctl.runtime.timeline import Timeline, process_start_ns

HELP = "Answer one event from a bundle, started fast."


def start(fields: dict[str, Any]) -> int:
    """Run with the fields of RunOptions, however they were parsed."""
    entered = getattr(sys.modules.get("__main__"), "ENTERED", None) or getattr(
        sys.modules.get("tidalctl.__main__"), "ENTERED", time.monotonic_ns()
    )
    timeline = Timeline(process_start_ns(), entered)
    timeline.add("start", entered, time.monotonic_ns())
    watch_writes()
    return run_bundle(RunOptions(**fields), timeline)
