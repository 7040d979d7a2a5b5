"""`tidalctl ps`: what this user's host keeps."""

import json
from typing import Annotated, Any

import typer

from tidalctl.host.client import ask_host
from tidalctl.report.terminal import count_text, seconds_text, size_text


def ps(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Show the templates that the host of `run --keep` keeps.

    Each is a process that has imported a bundle's function and holds its state.
    """
    answer = ask_host({"verb": "ps"})
    templates: list[dict[str, Any]] = answer["templates"] if answer is not None else []
    if as_json:
        found = {"schema": 1, "host": answer["pid"] if answer is not None else None, "templates": templates}
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    if answer is None:
        typer.echo("no host runs: tidalctl run app.bundle --event '{…}' --keep 10m starts one", err=True)
        return
    for kept in templates:
        typer.echo(_line(kept))


def _line(kept: dict[str, Any]) -> str:
    if "pid" not in kept:
        return f"{kept['bundle']}  {kept['state']}"
    spawned = "its workers are processes of their own: " if kept["workers"] == "spawned" else ""
    why = f": {spawned}{kept['cause']}" if kept["cause"] else ""
    busy = f"{kept['running']} running" if kept["running"] else f"idle for {seconds_text(kept['idle_s'])}"
    spares = f", {count_text(kept['spares'], 'spare')}" if kept["spares"] else ""
    held = f", {size_text(kept['memory_bytes'])}" if kept["memory_bytes"] else ""
    return f"{kept['bundle']}  {kept['state']}{why}; {kept['answered']} answered, {busy}{spares}{held} (kept for {kept['keep_s']:g} s)"
