"""The first start of a bundle in somebody else's process: its record, told once to the log and to a callback."""

import logging
import threading
import time
from collections.abc import Callable

from tidalctl.artifacts.cause import Reason, ordinary_way
from tidalctl.artifacts.records import Record
from tidalctl.report.terminal import seconds_text
from tidalctl.runtime.template import Template

LOGGER = "tidalctl"


class Start(Record, frozen=True):
    """How a start went.

    Attributes:
        strategy: How the state was made: snapshot, script, replay or eager.
        cause: Why init ran, as `code` and `text`; None where the state came from the bundle.
        phases: Seconds by phase, with the names of `run --json`.
    """

    strategy: str
    cause: Reason | None
    phases: dict[str, float]


class FirstStart:
    """`record` is None until the start is over: when the first output after a call of init is about to leave, or that call failed."""

    def __init__(self, template: Template, on_start: Callable[[Start], object] | None) -> None:
        self.record: Start | None = None
        self._template, self._on_start = template, on_start
        self._threads = {threading.current_thread().name}
        self._begun_ns: int | None = None
        template.on_over = self._over
        template.on_missing = self._missing

    def begun(self) -> None:
        """The handler begins to compute, in the thread that has imported it, or in another one."""
        if self.record is None:
            self._threads.add(threading.current_thread().name)
            self._begun_ns = time.monotonic_ns()

    def _over(self) -> None:
        template = self._template
        if self.record is not None or (template.manifest.init and not template.state_made):
            return
        if self._begun_ns is not None:
            template.timeline.add("compute", self._begun_ns, time.monotonic_ns())
        phases = template.timeline.phases(self._threads)
        self.record = Start(
            strategy=template.strategy,
            cause=template.fallback,
            phases={name: round(seconds, 6) for name, seconds in phases.items()},
        )
        self._log(self.record)
        if self._on_start is not None:
            self._on_start(self.record)

    def _missing(self, names: list[str]) -> None:
        logging.getLogger(LOGGER).warning(
            "%s: the traced function read files that are not here: %s", self._template.path, names
        )

    def _log(self, start: Start) -> None:
        logger, bundle, took = logging.getLogger(LOGGER), self._template.path, seconds_text(sum(start.phases.values()))
        if start.strategy == "eager":
            assert start.cause is not None
            logger.warning("%s started in %s; %s (%s)", bundle, took, ordinary_way(start.cause.text), start.cause.code)
        else:
            logger.info("%s started in %s; its state was made by %s", bundle, took, start.strategy)
