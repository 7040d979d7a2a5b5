"""`tidalctl run`: answer one event from a bundle."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tidalctl.commands.best_start import best_start
from tidalctl.commands.context_option import CONTEXT
from tidalctl.commands.kept import run_kept
from tidalctl.commands.one_event import one_event
from tidalctl.commands.size import parse_size
from tidalctl.runtime.options import Io, Prewarm, Require, UseImage, Verify


def run(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle, as compile wrote it.")],
    event: Annotated[
        list[str],
        typer.Option(
            "--event",
            "-e",
            metavar="JSON|FILE|-",
            help="The request: a JSON object, a file with one, or - for standard input.",
        ),
    ],
    fields: Annotated[str | None, CONTEXT] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON report, the output in it, instead of the output.")
    ] = False,
    timeline: Annotated[Path | None, typer.Option("--timeline", help="Write the start as Chrome trace events.")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write the start as a page to look at (HTML).")] = None,
    verify: Annotated[
        Verify,
        typer.Option("--verify", help="Check weights as they arrive, whole files before the start, or nothing."),
    ] = Verify.STREAM,
    readahead: Annotated[
        str,
        typer.Option("--readahead", help="Read weights at most so far ahead of their use: 2GB, 500MiB.  [default: no bound]"),
    ] = "",
    io: Annotated[
        Io,
        typer.Option("--io", help="Read a GPU's weights past the page cache, through it, or past it where it can't keep them."),
    ] = Io.AUTO,
    prewarm: Annotated[
        Prewarm,
        typer.Option(
            "--prewarm", help="Launch the bundle's kernels ahead: while it costs nothing, all of them first, or never."
        ),
    ] = Prewarm.AUTO,
    require: Annotated[
        Require | None,
        typer.Option("--require", help="Fail unless the state is made from the bundle by this strategy."),
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            "--keep",
            metavar="TIME",
            help="Have this machine's host answer, which is started if there is none, and keep the function imported so long: 10m.",
        ),
    ] = "",
    image: Annotated[
        UseImage,
        typer.Option("--image", help="Restore the bundle's process image: where that can be, never, or else fail."),
    ] = UseImage.AUTO,
    eager: Annotated[bool, typer.Option("--eager", help="Run the same function without the bundle's state.")] = False,
    state: Annotated[bool, typer.Option("--state", help="Add the sha256 of each weight that init gave to the report.")] = False,
) -> int:
    """Answer one event from a bundle, started fast.

    What the handler gives is printed on stdout, piece by piece; a table of phases follows on stderr. Arguments after -- reach
    the function's sys.argv.
    """
    return _started(
        keep,
        {
            "bundle": str(bundle),
            "event": one_event(event),
            "context": fields,
            "json": json,
            "timeline": str(timeline) if timeline else None,
            "report": str(report) if report else None,
            "verify": verify.value,
            "ahead": parse_size("--readahead", readahead) if readahead else None,
            "io": io.value,
            "prewarm": prewarm.value,
            "eager": eager,
            "state": state,
            "require": require.value if require else None,
            "image": image.value,
            "argv": tuple(context.args),
        },
    )


def _started(keep: str, fields: dict[str, Any]) -> int:
    return run_kept({**fields, "keep": keep}) if keep else best_start(fields)
