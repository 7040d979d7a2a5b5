"""`tidalctl compile`: turn a trace into a template bundle."""

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from tidalctl.artifacts.errors import TidalError
from tidalctl.commands.image import make_for_compile
from tidalctl.commands.size import parse_size
from tidalctl.compiler.code.shipment import ShippingRules
from tidalctl.compiler.explain import explanation, shipped_parts, summary, weights_of
from tidalctl.compiler.image_proof import ImageProof, prove_image
from tidalctl.compiler.pipeline import Compiled, compile_traces
from tidalctl.function.event import parse_event
from tidalctl.report.pins import pinned_by
from tidalctl.report.terminal import transfer_progress
from tidalctl.runtime.options import Require, UseImage


def compile(  # noqa: A001 - the verb's own name
    traces: Annotated[
        list[Path],
        typer.Argument(metavar="TRACE", help="The trace, as `tidalctl trace` made it, and later ones of the same function."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the bundle goes.  [default: NAME.bundle]")
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="FIELD",
            help="Init takes the same steps for any value of this field of the event, besides those that the traces name. Repeatable.",
        ),
    ] = None,
    check_event: Annotated[
        list[str] | None,
        typer.Option(
            "--check-event",
            metavar="JSON|FILE|-",
            help="Prove the bundle on this event, too, which took no part in deriving it. Repeatable.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="GLOB", help="Ship these files of the project, too, be they secrets. Repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="GLOB", help="Ship none of these files, as a line of .tidalignore says. Repeatable."),
    ] = None,
    checkpoint: Annotated[
        bool,
        typer.Option("--checkpoint", help="Ship files over 64 MB that init alone reads, for starts that have to run init."),
    ] = False,
    pin_env: Annotated[
        list[str] | None,
        typer.Option("--pin-env", metavar="NAME", help="A start compares this environment variable, too. Repeatable."),
    ] = None,
    ignore_env: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore-env", metavar="NAME", help="A start compares no environment variable of this name or pattern. Repeatable."
        ),
    ] = None,
    require: Annotated[
        Require | None,
        typer.Option("--require", help="Write no bundle unless a start from it makes its state by this strategy."),
    ] = None,
    shard_size: Annotated[
        str, typer.Option("--shard-size", help="Cut the weights into files of at most this size: 5GB, 500MiB.")
    ] = "",
    image: Annotated[
        UseImage,
        typer.Option(
            "--image", help="Make the bundle's process image, too (CRIU, as root): where that can be, never, or else fail."
        ),
    ] = UseImage.AUTO,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that exists.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print why the bundle is as it is.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: the bundle, its digest, strategy and notes.")
    ] = False,
) -> None:
    """Turn traces of a function into a template bundle.

    It is proved before it gets its name: a fresh process answers the traced events, and those of
    --check-event, from it as the plain function does. So the handler is called twice for each of
    these events, once plainly and once from the bundle, and again where an answer or a state
    differs, for times to plan with (bundles over 64 MB), and for each strategy that fails. After
    trace --once it is called as often as the proof needs, and no more.
    """
    for trace in traces:
        _refuse_missing(trace)
    check_event = check_event or []
    if len(check_event) > 1 and check_event.count("-") > 1:
        raise TidalError("standard input can give one event", "give the others as files or as JSON")
    first = traces[0]
    output = output or Path(first.name.removesuffix(".trace") + ".bundle")
    with transfer_progress("writing weights") as progress:
        compiled = compile_traces(
            traces,
            output,
            vary=vary or (),
            check_events=[parse_event(text)[1] for text in check_event],
            rules=ShippingRules(include=tuple(include or ()), exclude=tuple(exclude or ()), checkpoint=checkpoint),
            pin_env=pin_env or (),
            ignore_env=ignore_env or (),
            shard_size=parse_size("--shard-size", shard_size) if shard_size else None,
            require=require.value if require is not None else None,
            force=force,
            progress=progress,
            say=lambda line: typer.echo(f"  {line}", err=True),
        )
    manifest = compiled.manifest
    typer.echo(f"compiled {', '.join(map(str, traces))} → {output}", err=True)
    for line in summary(manifest, compiled.verdict, compiled.notes, compiled.warnings):
        typer.echo(line, err=True)
    image_bytes = make_for_compile(output, image, lambda: _image_proof(output, compiled))
    typer.echo(f"  {compiled.runs}", err=True)
    if explain:
        typer.echo("\n".join(explanation(manifest, compiled.call, compiled.verdict)), err=as_json)
    if as_json:
        typer.echo(json.dumps({**_report(compiled, output), "image_bytes": image_bytes}, ensure_ascii=False))
    typer.echo(f"next: tidalctl run {output} --event '{{…}}'", err=True)


def _image_proof(output: Path, compiled: Compiled) -> ImageProof:
    return prove_image(output, compiled.header, compiled.runs, reproducible=compiled.verdict.reproducible)


def _refuse_missing(trace: Path) -> None:
    if not trace.exists():
        near = sorted(p.name for p in trace.absolute().parent.glob("*.trace")) if trace.absolute().parent.is_dir() else []
        hint = f"there is: {', '.join(near[:5])}" if near else "make one: tidalctl trace app.py --event '{…}'"
        raise TidalError(f"no trace at {trace}", hint)


def _report(compiled: Compiled, output: Path) -> dict[str, Any]:
    manifest, weights = compiled.manifest, weights_of(compiled.manifest)
    return {
        "schema": 1,
        "bundle": str(output),
        "digest": manifest.digest,
        "strategy": manifest.strategy,
        "dynamic": list(manifest.dynamic),
        "further": [{"number": state.number, "init": state.init} for state in manifest.further],
        "init_s": compiled.verdict.init_s,
        "traced_init_s": compiled.verdict.traced_init_s,
        "reproducible": manifest.reproducible,
        "ships": {part: {"files": len(sizes), "bytes": sum(sizes)} for part, sizes in shipped_parts(manifest).items()},
        "pinned_by": pinned_by(manifest),
        "needs": msgspec.to_builtins(manifest.needs),
        "events": compiled.verdict.events,
        "handler_runs": compiled.runs.plain + compiled.runs.bundle,
        "weights": len(weights),
        "weights_bytes": sum(weight.nbytes for weight in weights),
        "fallbacks": msgspec.to_builtins(manifest.fallbacks),
        "notes": list(compiled.notes),
        "warnings": list(compiled.warnings),
    }
