"""`tidalctl stop`: end this user's host, or what it keeps of one bundle."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from tidalctl.artifacts.errors import TidalError
from tidalctl.host.client import ask_host


def stop(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="The bundle whose template ends; all, and the host, without.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """End the host of `run --keep`, or the template of one bundle.

    Workers that are answering end with it.
    """
    path = os.path.realpath(bundle) if bundle is not None else None
    answer = ask_host({"verb": "stop", "bundle": path})
    stopped: list[str] = answer["stopped"] if answer is not None else []
    if path is not None and not stopped:
        raise TidalError(f"no host keeps {bundle}", "what one keeps: tidalctl ps")
    if as_json:
        typer.echo(json.dumps({"schema": 1, "stopped": stopped}, ensure_ascii=False))
    elif answer is None:
        typer.echo("no host runs", err=True)
    else:
        typer.echo("\n".join(f"stopped {name}" for name in stopped) or "stopped the host, which kept nothing", err=True)
