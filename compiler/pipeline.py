"""`compile`: traces → decide → ship → attempt, write and prove, from the best strategy downwards → publish."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tidalctl.artifacts.bundle.directory import (
    clear_stale_partials,
    partial_name,
    publish,
    remove,
    sync_tree,
    unlisted_files,
)
from tidalctl.artifacts.bundle.manifest import CODE, Manifest
from tidalctl.artifacts.bundle.output_paths import refuse_existing, refuse_folder
from tidalctl.artifacts.cause import Cause
from tidalctl.artifacts.errors import StateNotUsed, TidalError
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.remedy import remedy
from tidalctl.artifacts.trace.events import with_events
from tidalctl.artifacts.trace.file import Trace, read_trace
from tidalctl.artifacts.trace.records import FileOpened, Header, InitCall
from tidalctl.compiler.assemble import first_use_times
from tidalctl.compiler.attempt import Workplace
from tidalctl.compiler.away import Away
from tidalctl.compiler.code.project_files import again, changed_since
from tidalctl.compiler.code.secret_values import refuse_secrets
from tidalctl.compiler.code.shipment import Shipment, ShippingRules, copy_shipment, plan_shipment
from tidalctl.compiler.explain import Verdict
from tidalctl.compiler.further import in_words
from tidalctl.compiler.handler_runs import HandlerRuns
from tidalctl.compiler.ladder import Ladder
from tidalctl.compiler.merged_trace import merge_traces
from tidalctl.compiler.notes import notes_of
from tidalctl.compiler.proof import run_plainly
from tidalctl.compiler.states import with_state_names
from tidalctl.compiler.variables import variables_warning, with_variables
from tidalctl.function.target import refuse_unknown_fields

Progress = Callable[[int, int], None]
Say = Callable[[str], None]
EVERYTHING_USED = ShippingRules()


class Compiled(Record, frozen=True):
    """A bundle in its place, and what there is to say about it."""

    manifest: Manifest
    verdict: Verdict
    call: InitCall | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    runs: HandlerRuns
    header: Header  # of the traces as one
    secrets: tuple[str, ...] = ()  # files that are not shipped


def compile_traces(
    paths: Sequence[Path],
    output: Path,
    *,
    vary: Sequence[str] = (),
    check_events: Sequence[str] = (),
    rules: ShippingRules = EVERYTHING_USED,
    pin_env: Sequence[str] = (),
    ignore_env: Sequence[str] = (),
    shard_size: int | None = None,
    require: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
) -> Compiled:
    """Make the bundle `output` from one or more traces of one function, prove it, and give it its name.

    The function's init is run once more for its snapshot, so its project and checkpoint must still be there. `vary` are fields of
    the event that may vary besides those that the traces name. `check_events` are JSON texts of events that the bundle is proved on
    as well. `rules` say what is shipped besides what the trace saw used. `pin_env` and `ignore_env` name environment variables that a
    start compares, and that it does not. `require` is the only strategy by which its state may be made. Raises TidalError where a
    trace can't be used, the output exists, or what it was traced with has changed.
    """
    refuse_existing(output, force, "bundle")
    refuse_folder(output)
    traces = [read_trace(path) for path in paths]
    for trace, path in zip(traces, paths, strict=True):
        _refuse_unusable(trace, path)
    traces = [with_events(trace, path) for trace, path in zip(traces, paths, strict=True)]
    trace = with_state_names(with_variables(merge_traces(traces, paths, vary), pin_env, ignore_env))
    refuse_unknown_fields(trace.header.vary, (json.loads(event.text) for event in trace.header.events))
    output = Path(os.path.abspath(output))
    clear_stale_partials(output)
    # both beside the bundle, under names that the next compile knows to clear
    partial, work = partial_name(output), partial_name(output.with_name(f"{output.name}.work"))
    partial.mkdir()
    try:
        work.mkdir()
        place = Workplace(trace=trace, partial=partial, work=work, shard_size=shard_size, runs=HandlerRuns())
        compiled = _build(place, rules, check_events, progress, say)
        _refuse_otherwise(compiled.manifest, require)
        refuse_secrets(partial, Path(trace.header.root), compiled.secrets, os.environ)
        sync_tree(partial)
        publish(partial, output)
    finally:
        remove(partial)
        remove(work)
    return compiled


def _refuse_otherwise(manifest: Manifest, require: str | None) -> None:
    """Raise StateNotUsed where the state is made otherwise than by the strategy that is required."""
    if require in (None, manifest.strategy):
        return
    lost = [f": {lost.cause} ({lost.code})" for lost in manifest.fallbacks if lost.strategy == manifest.strategy]
    reason = Cause.STRATEGY_DIFFERS.of(strategy=manifest.strategy, required=require, why=lost[-1] if lost else "")
    raise StateNotUsed(f"no bundle was written: {reason}", remedy(reason), reason.code)


def _refuse_unusable(trace: Trace, path: Path) -> None:
    """Raise TidalError unless all is there that a compile needs."""
    if not trace.complete:
        raise TidalError(f"{path} is incomplete: the function raised or was killed", f"what it did: tidalctl inspect {path}")
    source = Path(trace.header.root, trace.header.function.source)
    if not source.is_file():
        raise TidalError(f"{source}, which was traced, is gone", "trace the function where it is now")
    if name := changed_since(trace):
        raise TidalError(f"{name} has changed since the trace", again(trace))
    for record in trace.of(FileOpened):
        if record.phase == "init" and not record.mapped and record.size > 0 and not Path(record.path).exists():
            raise TidalError(f"{record.path}, which init read in the trace, is gone", "put it back, or trace again without it")


def _build(
    place: Workplace, rules: ShippingRules, check_events: Sequence[str], progress: Progress | None, say: Say
) -> Compiled:
    trace, partial = place.trace, place.partial
    shipment = plan_shipment(trace, rules)
    copy_shipment(shipment, Path(trace.header.root), partial / CODE)
    checks = run_plainly(place, check_events)
    made, manifest, strategy, away, shipment, reproducible = Ladder(place, shipment, checks, progress, say).descend()
    call = strategy.inits[0].call if strategy.inits else None
    warnings = (*shipment.warnings, *variables_warning(trace), *_written(away, manifest, shipment))
    notes = (*notes_of(trace, strategy, manifest, made.report), *made.notes, *shipment.notes)
    if not away.native:
        notes = (
            *notes,
            "this kernel lets nobody hide files: that no library opens one of the project's by itself is not proved",
        )
    verdict = Verdict(
        events=len(trace.header.events) + len(checks),
        checked=len(checks),
        reproducible=reproducible,
        static=strategy.static,
        further=tuple(in_words(made, strategy)),
        init_s=made.report.init_s,
        traced_init_s=call.duration_s if call is not None else 0.0,
        first_uses=first_use_times(trace, made, manifest),
    )
    return Compiled(
        manifest=manifest,
        verdict=verdict,
        call=call,
        notes=notes,
        warnings=warnings,
        runs=place.runs,
        header=trace.header,
        secrets=shipment.secrets,
    )


def _written(away: Away, manifest: Manifest, shipment: Shipment) -> list[str]:
    """Tell what the handler wrote beside its own source during the proof."""
    secrets = {f"{CODE}/{name}" for name in shipment.secrets}
    found = [name for name in unlisted_files(Path(away.bundle), manifest) if name not in secrets]
    return [f"the function writes {name.removeprefix('code/')} beside its own source, and so into the bundle" for name in found]
