"""What `compile` notes about a bundle: what is kept besides the state, and what could be marked static."""

import os
from collections.abc import Iterator
from pathlib import Path

from tidalctl.artifacts.bundle.directory import file_digest
from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import FileOpened, FurtherCall, Import, InitCall, WeightsBuilt
from tidalctl.compiler.snapshot.records import SnapshotReport
from tidalctl.compiler.strategy import Strategy
from tidalctl.compiler.suggest import suggestion
from tidalctl.report.built_weights import further_call, what_to_name


def notes_of(trace: Trace, strategy: Strategy, manifest: Manifest, report: SnapshotReport) -> Iterator[str]:
    """Yield the notes, each a line or a few for a person."""
    yield from strategy.notes
    calls = [init.call for init in strategy.inits]
    if not calls:
        yield f"no init was called{what_to_name(trace.header.function.init, trace.one(WeightsBuilt))}"
        return
    yield from (further_call(call) for call in trace.of(FurtherCall))
    source, name = _source_of(trace, calls[0])
    if manifest.strategy != "eager" and report.kept_globals:
        yield f"init also sets {', '.join(report.kept_globals)}: kept with the state"
    for record in trace.of(FileOpened):
        if record.phase == "init" and record.written and _digest(record.path) != record.written:
            yield f"init writes {record.path}, and other bytes each time"
    lines = [call.first_event_line for call in calls if call.first_event_line is not None]
    if lines and not any(call.static for call in calls):
        found = suggestion(source, name, min(lines))
        if found is not None:
            yield found


def _digest(path: str) -> str | None:
    """Return the sha256 of a file, None where it is gone."""
    try:
        return file_digest(Path(path))
    except OSError:
        return None


def _source_of(trace: Trace, call: InitCall) -> tuple[Path, str]:
    """Return the file of the module that defines init, and init's name in it."""
    module, _, name = call.name.partition(":")
    function = trace.header.function
    files = {record.name: record.file for record in trace.of(Import)}
    source = Path(trace.header.root, function.source) if module == function.module else Path(files.get(module) or os.devnull)
    return source, name
