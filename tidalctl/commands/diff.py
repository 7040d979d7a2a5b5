"""`tidalctl diff`: what two traces, bundles or benches differ in, and what it costs a start."""

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tidalctl.artifacts.errors import CheckFailed, TidalError
from tidalctl.diff.differences import Difference, differences
from tidalctl.diff.facts import read_facts
from tidalctl.report.terminal import printable, size_text

SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A trace, a bundle, or what bench --json wrote.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Another one of the same kind.")],
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where they differ.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what two artifacts differ in, and what it costs.

    Of traces, bundles, or benches: imports that came or went with their seconds and who imports them; weights, kernels,
    conditions, files, strategy and causes; times. Nothing is run.
    """
    before, after = read_facts(old), read_facts(new)
    if before.kind != after.kind:
        raise TidalError(f"{old} is a {before.kind}, and {new} is a {after.kind}", "give two of one kind")
    found = differences(before, after)
    if as_json:
        typer.echo(
            json.dumps(
                {"schema": 1, "old": str(old), "new": str(new), "kind": after.kind, "differences": msgspec.to_builtins(found)},
                ensure_ascii=False,
            )
        )
    else:
        imports = [one.seconds for one in found if one.subject == "import" and one.seconds is not None]
        if len(imports) > 1:
            typer.echo(f"imports take {sum(imports):+.2f} s, as the traces saw it")
        for one in found:
            typer.echo(_line(one))
        if not found:
            typer.echo(f"no difference: a start from one {after.kind} does what a start from the other does")
    if found and exit_code:
        hint = "they are listed above; without --exit-code the exit code is 0"
        raise CheckFailed(f"{old} and {new} differ in {len(found)} points", hint)


def _line(one: Difference) -> str:
    seconds = f"{one.seconds:+.3f} s" if one.seconds is not None else ""
    size = f"{'+' if one.bytes > 0 else '-'}{size_text(abs(one.bytes))}" if one.bytes else ""
    return f"{SIGNS[one.sign]} {one.subject:<10}{seconds or size:>10}  {printable(one.text)}"
