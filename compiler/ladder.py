"""The strategies from the best downwards: each is tried, written and proved, until one holds; `eager` always does."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from tidalctl.artifacts.bundle.manifest import CODE, Fallback, Guard, Manifest
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.errors import CheckFailed, TidalError
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import FileOpened
from tidalctl.compiler.assemble import add_start_times, write_files
from tidalctl.compiler.attempt import Attempt, Progress, Workplace, attempt, clear
from tidalctl.compiler.away import Away, lay_away
from tidalctl.compiler.code.needed_files import needed_files
from tidalctl.compiler.code.project_files import again
from tidalctl.compiler.code.shipment import Shipment, copy_files
from tidalctl.compiler.conditions import not_reproducible, of_the_event, with_left_out, written_file
from tidalctl.compiler.further import kept_states, lost_state
from tidalctl.compiler.proof import Expected, Say, compare_plain_runs, prove, steadier_times
from tidalctl.compiler.snapshot.records import SnapshotReport
from tidalctl.compiler.states import with_state_names, without_main_state
from tidalctl.compiler.strategy import Strategy, decide


class ProvedBundle(NamedTuple):
    """What lies in the folder in the end, and answers as the plain function does."""

    made: Attempt
    manifest: Manifest
    strategy: Strategy
    away: Away
    shipment: Shipment
    reproducible: bool


class Ladder:
    """Tries strategies for the main state. Where none will do, another state becomes the main one.

    `checks` are what the plain function gives for events that were not traced.
    """

    def __init__(
        self, place: Workplace, shipment: Shipment, checks: Sequence[Expected], progress: Progress | None, say: Say
    ) -> None:
        self._place, self._shipment, self._checks = place, shipment, checks
        self._progress, self._say = progress, say
        self._root = Path(place.trace.header.root)

    def descend(self) -> ProvedBundle:
        """Return the best bundle that is proved. Raises CheckFailed where not even the plain way answers as it did."""
        fallbacks: list[Fallback] = []
        while True:
            strategy = decide(self._place.trace)
            fallbacks += strategy.fallbacks
            for kind in ("script", "replay") if strategy.kind == "script" else (strategy.kind,):
                made, reproducible = self._attempt(kind, strategy)
                found = self._proved(made, strategy, reproducible, fallbacks)
                if isinstance(found, ProvedBundle):
                    return found
                clear(self._place, made)
                cause = found
                fallbacks.append(Fallback.of("state", "replay" if kind == "script" else "eager", cause))
            if not strategy.further:
                return self._eager(made, strategy, reproducible, fallbacks)
            others = [lost for lost in fallbacks if lost.part != "state"]
            fallbacks = list(dict.fromkeys([*others, lost_state(strategy.inits[0].call, cause)]))
            self._place = msgspec.structs.replace(self._place, trace=with_state_names(without_main_state(self._place.trace)))

    def _attempt(self, kind: str, strategy: Strategy) -> tuple[Attempt, bool]:
        """Return what was made, with a cause where it can't be used, and whether the function's answers are the same each time."""
        self._say(f"running the function once more, plainly{', to take its state' if strategy.inits else ''}")
        made = attempt(kind, strategy, self._place, self._progress)
        _refuse_changed_checkpoint(strategy, self._place.trace, made.report)
        if made.kind != "eager":
            made = kept_states(made, strategy, self._place)
        reproducible, made = compare_plain_runs(
            self._place, strategy.inits[0].call if strategy.inits else None, made, self._say
        )
        return made, reproducible

    def _proved(
        self, made: Attempt, strategy: Strategy, reproducible: bool, fallbacks: Sequence[Fallback]
    ) -> ProvedBundle | Reason:
        """Write the bundle and prove it. Return the cause where it does not hold."""
        trace, written = self._place.trace, None
        if made.kind != "replay":
            written = written_file(made.report.init, trace.of(FileOpened))
        if cause := made.cause or written:
            return cause
        while True:
            further = (msgspec.structs.replace(state, guard=self._with_left_out(state.guard)) for state in made.further)
            made = msgspec.structs.replace(made, guard=self._with_left_out(made.guard), further=tuple(further))
            manifest = self._written(made, reproducible, tuple(dict.fromkeys([*made.lost, *fallbacks])))
            away = lay_away(self._place.partial, self._place.work, trace, self._shipment, hide=made.kind != "replay")
            difference, times = prove(self._place, away, manifest, made.report, self._checks, self._say)
            if difference is None:
                add_start_times(self._place.partial, steadier_times(self._place, manifest, times, self._say))
                return ProvedBundle(made, manifest, strategy, away, self._shipment, reproducible)
            failure = Cause.PROOF_FAILED.of(what=away.without_folders(difference))
            if not made.further:
                return failure
            self._say(f"{difference}; proving it once more with the main state alone")
            made = kept_states(made, strategy, self._place, refused=failure)

    def _eager(self, made: Attempt, strategy: Strategy, reproducible: bool, fallbacks: Sequence[Fallback]) -> ProvedBundle:
        made = msgspec.structs.replace(
            made, kind="eager", guard=of_the_event(made.guard), dynamic=(), answers=(), notes=(), further=()
        )
        shipment = self._shipment
        copy_files(shipment.checkpoints, self._root, self._place.partial / CODE)  # every start reads them
        self._shipment = msgspec.structs.replace(shipment, checkpoints=(), data=(*shipment.data, *shipment.checkpoints))
        manifest = self._written(made, reproducible, fallbacks)
        away = lay_away(self._place.partial, self._place.work, self._place.trace, self._shipment, hide=False)
        difference, _ = prove(self._place, away, manifest, made.report, self._checks, self._say)
        if difference is not None:
            raise CheckFailed(f"the bundle does not answer as the plain function does: {difference}", "nothing was written")
        return ProvedBundle(made, manifest, strategy, away, self._shipment, reproducible)

    def _written(self, made: Attempt, reproducible: bool, fallbacks: Sequence[Fallback]) -> Manifest:
        trace = self._place.trace
        needs = needed_files(trace, self._shipment)
        return write_files(trace, made, tuple(fallbacks), reproducible, needs, self._place.partial)

    def _with_left_out(self, guard: Guard) -> Guard:
        return with_left_out(guard, self._shipment, self._root)


def _refuse_changed_checkpoint(strategy: Strategy, trace: Trace, report: SnapshotReport) -> None:
    """Raise TidalError where a file that init reads has changed since the trace, and with it a weight.

    A file that init writes itself is made anew in each run.
    """
    if not_reproducible(strategy, report) is None:
        return
    for record in trace.of(FileOpened):
        if record.phase == "init" and not record.mapped and record.written is None:
            status = os.stat(record.path)
            if (status.st_size, status.st_mtime_ns) != (record.size, record.mtime_ns):
                raise TidalError(f"{record.path} has changed since the trace", again(trace))
