"""`tidalctl ps`: what this user's hosts keep."""

import json
from typing import Annotated, Any

import typer

from tidalctl.host.client import ask_host, ask_serving
from tidalctl.report.terminal import count_text, seconds_text, size_text


def ps(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Show the templates that this user's hosts keep.

    Those of `run --keep` and of `serve`: each is a process that has imported a bundle's function and holds its state.
    """
    answer, serving = ask_host({"verb": "ps"}), ask_serving()
    templates: list[dict[str, Any]] = answer["templates"] if answer is not None else []
    if as_json:
        host = answer["pid"] if answer is not None else None
        typer.echo(json.dumps({"schema": 1, "host": host, "templates": templates, "serving": serving}, ensure_ascii=False))
        return
    if answer is None and not serving:
        typer.echo("no host runs: tidalctl run app.bundle --event '{…}' --keep 10m starts one", err=True)
        return
    for kept in templates:
        typer.echo(_line(kept))
    for one in serving:
        typer.echo(f"{', '.join(one['urls'])} (process {one['pid']})")
        for served in one["templates"]:
            typer.echo(f"  {served['function']}: {_line(served)}")


def _line(kept: dict[str, Any]) -> str:
    if "pid" not in kept:
        return f"{kept['bundle']}  {kept['state']}" + (f": {kept['cause']}" if kept["cause"] else "")
    spawned = "its workers are processes of their own: " if kept["workers"] == "spawned" else ""
    why = f": {spawned}{kept['cause']}" if kept["cause"] else ""
    busy = f"{kept['running']} running" if kept["running"] else f"idle for {seconds_text(kept['idle_s'])}"
    spares = f", {count_text(kept['spares'], 'spare')}" if kept["spares"] else ""
    held = f", {size_text(kept['memory_bytes'])}" if kept["memory_bytes"] else ""
    until = f" (kept for {kept['keep_s']:g} s)" if kept["keep_s"] else ""
    return f"{kept['bundle']}  {kept['state']}{why}; {kept['answered']} answered, {busy}{spares}{held}{until}"
