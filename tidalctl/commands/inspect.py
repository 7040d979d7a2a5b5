"""`tidalctl inspect`: show what is in a trace or a bundle. Never imports torch."""

import contextlib
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from tidalctl.artifacts.bundle import MANIFEST
from tidalctl.artifacts.bundle.directory import open_bundle
from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.trace.events import with_events
from tidalctl.artifacts.trace.file import read_trace
from tidalctl.function.near_names import near_names


def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A trace (a file) or a bundle (a directory).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as one JSON document.")] = False,
) -> None:
    """Show what is in a trace or a bundle.

    Its function, environment, imports, weights in order, kernels, and plan.
    """
    document = read_document(path)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(document), indent=1).decode())
        return
    from tidalctl.report.bundle_tables import show_bundle
    from tidalctl.report.terminal import console
    from tidalctl.report.trace_tables import show_trace

    show = show_trace if document["kind"] == "trace" else show_bundle
    show(document, console())


def read_document(path: Path) -> dict[str, Any]:
    """Everything in a trace or bundle as builtin values. Raises TidalError where there is none, or it is damaged."""
    if not path.exists():
        raise TidalError(f"no trace or bundle at {path}", _near(path))
    if path.is_dir():
        from tidalctl.report.bundle_tables import bundle_document

        return bundle_document(open_bundle(path), path)
    from tidalctl.report.trace_tables import trace_document

    trace = read_trace(path)
    with contextlib.suppress(TidalError):  # the digests are shown
        trace = with_events(trace, path)
    return trace_document(trace, path)


def _near(path: Path) -> str:
    """What there is in the same folder: names like the one that was asked for, else traces and bundles."""
    folder = path.parent
    found = sorted(p for p in folder.glob("*") if p.suffix == ".trace" or (p / MANIFEST).is_file())
    names = [p.name for p in found]
    near = near_names(path.name, names) or names[:3]
    if not near:
        return "make a trace first: tidalctl trace app.py --event '{…}'"
    return f"did you mean: {', '.join(str(folder / name) for name in near)}"
