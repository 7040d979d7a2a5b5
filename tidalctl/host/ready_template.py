"""A template that has imported its function and holds its state, in a process that waits for events."""

import os
import time
from pathlib import Path

from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.host.global_generators import GlobalGenerators
from tidalctl.runtime.process.exit import watch_writes
from tidalctl.runtime.process.frame_stack import with_frame_stack
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.template import Template
from tidalctl.runtime.weights.weight_stream import StreamOptions

READERS_END_WITHIN_S = 2.0  # that have read code ahead of the imports


class NotForked(Exception):
    """The bundle can't be served by forks of one process. `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(reason.text)


def ready_template(bundle: Path, *, forked: bool, streamed: StreamOptions | None = None) -> tuple[Template, GlobalGenerators]:
    """Import the bundle's function, and put its states together where no event is needed for that.

    Weights are in and checked, unless `streamed` holds them. Raises NotForked where the process is to be `forked` and can't be, or
    TidalError.
    """
    now = time.monotonic_ns()
    watch_writes()
    template = Template(bundle, Timeline(now, now), streamed)
    if forked and template.weights.on_device:
        raise NotForked(Cause.DEVICE_NOT_FORKED.of(device=template.manifest.fingerprint.device))
    generators = GlobalGenerators()
    with_frame_stack(template.import_ahead)
    generators.imported()
    if not template.weights.options.held:
        template.weights.wait()
    template.make_ready(before_first=True)
    template.collector.freeze_now()
    if forked:
        _refuse_threads()
    return template, generators


def _refuse_threads() -> None:
    """Raise NotForked where this process has more than one thread: a fork has no other.

    What a library starts at import ends in a throwaway fork, where the library minds forks.
    """
    if not (pid := os.fork()):
        os._exit(0)
    os.waitpid(pid, 0)
    until = time.monotonic() + READERS_END_WITHIN_S
    while (threads := len(os.listdir("/proc/self/task"))) > 1 and time.monotonic() < until:
        time.sleep(0.01)
    if threads > 1:
        raise NotForked(Cause.THREADS_NOT_FORKED.of(count=threads - 1))
