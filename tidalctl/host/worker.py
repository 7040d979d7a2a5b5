"""A worker: a fork of a template process that answers one event as a process of its own would, and ends."""

import os
import signal
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from tidalctl.host.process_properties import GlobalGenerators, die_with_parent, take_over
from tidalctl.runtime.launch import RunOptions, run
from tidalctl.runtime.process.exit import leave
from tidalctl.runtime.process.exit_code import exit_code_of
from tidalctl.runtime.process.frame_stack import with_frame_stack
from tidalctl.runtime.template import Template


def answer(template: Template, generators: GlobalGenerators, request: Mapping[str, Any], streams: list[int]) -> NoReturn:
    """Answer the request of a client with its own properties, and end with the exit code that it would have."""
    die_with_parent()
    os.setsid()
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    take_over(request, streams)
    generators.put_right()
    template.timeline.restart(int(request["started_ns"]), int(request["entered_ns"]))
    template.timeline.add("host", int(request["entered_ns"]), time.monotonic_ns())
    fields = {**request["fields"], "argv": tuple(request["fields"].get("argv", ()))}
    leave(exit_code_of(lambda: with_frame_stack(lambda: run(RunOptions(**fields), template.timeline, template))))
    raise AssertionError("leave does not return")
