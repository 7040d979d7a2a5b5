"""`tidalctl run`: answer one event from a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from tidalctl.runtime.launch import start


def run(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle, as `tidalctl compile` made it.")],
    event: Annotated[
        str, typer.Option("--event", "-e", help="The request: a JSON object, a file with one, or - for standard input.")
    ],
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON report, the output in it, instead of the output.")
    ] = False,
    timeline: Annotated[Path | None, typer.Option("--timeline", help="Write the start as Chrome trace events.")] = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Check the bundle's digests while it loads.")] = True,
    eager: Annotated[bool, typer.Option("--eager", help="Run the same function without the bundle's state.")] = False,
    state: Annotated[bool, typer.Option("--state", help="Add the sha256 of each weight that init gave to the report.")] = False,
) -> int:
    """Answer one event from a bundle, started fast.

    What the handler gives is printed on stdout, piece by piece; a table of phases follows on stderr. Arguments after -- reach
    the function's sys.argv.
    """
    return start(
        {
            "bundle": str(bundle),
            "event": event,
            "json": json,
            "timeline": str(timeline) if timeline else "",
            "verify": verify,
            "eager": eager,
            "state": state,
            "argv": tuple(context.args),
        }
    )
