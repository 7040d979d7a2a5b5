"""A snapshot taken in the test's own process, of a project written to disk: its report says what compile would fall back for."""

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

from tidalctl.artifacts.records import Function
from tidalctl.compiler.snapshot import SnapshotReport, SnapshotRequest
from tidalctl.compiler.snapshotter import Snapshotter
from tidalctl.context import answer_inits_with

HEAD = "import tidalctl\nimport torch\n"
_NUMBERS = itertools.count()


def take(folder: Path, source: str, event: dict[str, Any] | None = None) -> SnapshotReport:
    """Call the source's handler once, with a snapshotter to answer its init."""
    name = f"taken_{next(_NUMBERS)}"  # the process has the modules of earlier ones
    (folder / f"{name}.py").write_text(HEAD + source)
    function = Function(source=f"{name}.py", module=name, handler="handler")
    request = SnapshotRequest(function=function, root=str(folder), argv=(), events=("{}",), report="", folder=str(folder))
    snapshotter = Snapshotter(request)
    sys.path.insert(0, str(folder))
    answer_inits_with(snapshotter.answer)
    try:
        handler = importlib.import_module(name).handler
        snapshotter.imported()
        handler(event or {}, None)
    finally:
        answer_inits_with(None)
        sys.path.remove(str(folder))
    told = snapshotter.report
    return SnapshotReport(**{**told, "cause": told.get("cause", "").replace(name, "app")})
