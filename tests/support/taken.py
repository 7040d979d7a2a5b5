"""A snapshot taken in the test's own process, of a project written to disk: its report says what compile would fall back for."""

import importlib
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.records import Function
from tidalctl.compiler.snapshot.records import SnapshotReport, SnapshotRequest, StateRequest
from tidalctl.compiler.snapshot.snapshotter import Snapshotter
from tidalctl.function.event_probe import arguments_digest
from tidalctl.function.init_mark import answer_inits_with

HEAD = "import tidalctl\nimport torch\n"
_NUMBERS = itertools.count()


def take(folder: Path, source: str, *events: dict[str, Any], calls: Sequence[tuple[str, list[Any]]] = ()) -> SnapshotReport:
    """Call the source's handler once for each event, with a snapshotter to answer its init.

    `calls` are the states that are wanted, where there are several: inits by name, and their arguments.
    """
    name = f"taken_{next(_NUMBERS)}"  # the process has the modules of earlier ones
    (folder / f"{name}.py").write_text(HEAD + source)
    function = Function(source=f"{name}.py", module=name, handler="handler")
    states = tuple(
        StateRequest(number, f"{name}:{init}", arguments_digest(None, tuple(arguments), {}) or "")
        for number, (init, arguments) in enumerate(calls)
    )
    request = SnapshotRequest(
        function=function,
        root=str(folder),
        argv=(),
        events=("{}",),
        report="",
        folder=str(folder),
        states=states or (StateRequest(),),
        wanted=tuple(range(len(states) or 1)),
    )
    snapshotter = Snapshotter(request)
    sys.path.insert(0, str(folder))
    answer_inits_with(snapshotter.answer)
    try:
        handler = importlib.import_module(name).handler
        snapshotter.imported()
        for index, event in enumerate(events or [{}]):
            snapshotter.begin(index, event)
            handler(event, None)
    finally:
        answer_inits_with(None)
        sys.path.remove(str(folder))
    report = snapshotter.report()
    if report.cause is None:
        return report
    cause = msgspec.structs.replace(report.cause, text=report.cause.text.replace(name, "app"))
    return msgspec.structs.replace(report, cause=cause)
