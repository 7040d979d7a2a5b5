"""`tidalctl trace`: record the execution path of a function."""

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import (
    FirstUse,
    FurtherCall,
    Import,
    InitCall,
    Invocation,
    TracingCost,
    Weight,
    WeightsBuilt,
)
from tidalctl.commands.context_option import CONTEXT
from tidalctl.function.context import parse_context
from tidalctl.function.event import parse_event
from tidalctl.function.shapes import ShapeName
from tidalctl.function.target import refuse_unknown_fields
from tidalctl.report.built_weights import further_call, init_found, what_to_name
from tidalctl.report.terminal import count_text, size_text
from tidalctl.tracer.launch import record_trace


def trace(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="path/to/app.py:handler or package.module:handler; :handler may be left out. Or the file of a cog, LitServe "
            "or SageMaker model.",
        ),
    ],
    event: Annotated[
        list[str],
        typer.Option(
            "--event",
            "-e",
            metavar="JSON|FILE|-",
            help="The request: a JSON object, a file with one, or - for standard input. Repeatable.",
        ),
    ],
    fields: Annotated[str | None, CONTEXT] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the trace goes.  [default: NAME.trace]")] = None,
    init: Annotated[
        list[str] | None,
        typer.Option(
            "--init",
            help="What builds the state, where nothing marks it: app:load, app:Predictor.setup, app:Predictor, app:12-14 for lines "
            "that are run at import; auto for what a first run shows to make the weights. Repeatable.",
        ),
    ] = None,
    static: Annotated[
        bool,
        typer.Option(
            "--static",
            help="Promise of what --init names what @tidalctl.init(static=True) does: its state depends on no request.",
        ),
    ] = False,
    shape: Annotated[
        ShapeName | None,
        typer.Option("--shape", help="What TARGET is, where its source does not show it: see docs/shapes.md."),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary", metavar="FIELD", help="Init takes the same steps for any value of this field of the event. Repeatable."
        ),
    ] = None,
    encode: Annotated[
        bool,
        typer.Option(
            "--encode",
            help="Convert outputs that are not JSON (tensors, arrays, dataclasses, dates), in all runs of the bundle, too.",
        ),
    ] = False,
    once: Annotated[
        bool,
        typer.Option("--once", help="Call the handler once for each event, and in compile no more often than needed."),
    ] = False,
    tensorboard: Annotated[Path | None, typer.Option("--tensorboard", help="Keep the raw profiles in this folder.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a trace that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: the trace and each event's times.")] = False,
) -> None:
    """Run a function once and record its execution path.

    It runs under the profiler, in a process of its own. The handler is called twice for each event, with --once once; with
    --init auto once more, before. Arguments after -- reach the function's sys.argv.
    """
    place = target.partition(":")[0]
    stem = Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]
    output = output or Path(f"{stem}.trace")
    events = [parse_event(text)[1] for text in event]
    if len(event) > 1 and event.count("-") > 1:
        raise TidalError("standard input can give one event", "give the others as files or as JSON")
    refuse_unknown_fields(vary or (), map(json.loads, events))
    found: list[WeightsBuilt] = []
    recorded = record_trace(
        target,
        events,
        output,
        inits=init or (),
        shape=shape.value if shape is not None else "",
        static=static,
        vary=vary or (),
        argv=context.args,
        tensorboard=tensorboard,
        force=force,
        context=parse_context(fields) if fields is not None else "",
        encode=encode,
        once=once,
        on_init_found=found.append,
    )
    for built in found:
        typer.echo(f"  {init_found(built)}", err=True)
    # --init auto has called the handler before, unless the import had made the weights
    runs = len(events) * (1 if once else 2) + (init == ["auto"] and not any(built.at_import for built in found))
    typer.echo(_summary(recorded, output, runs, tensorboard), err=True)
    if context.info_name != "build":
        typer.echo(f"next: tidalctl compile {output}", err=True)
    if as_json:
        typer.echo(json.dumps(_report(recorded, output, runs), ensure_ascii=False))


def _report(recorded: Trace, output: Path, runs: int) -> dict[str, Any]:
    call, cost = recorded.one(InitCall), recorded.one(TracingCost)
    return {
        "schema": 1,
        "trace": str(output),
        "complete": recorded.complete,
        "handler_runs": runs,
        "init": None if call is None else {"name": call.name, "static": call.static, "duration_s": call.duration_s},
        "events": [msgspec.to_builtins(invocation) for invocation in recorded.of(Invocation)],
        "cost": None if cost is None else msgspec.to_builtins(cost),
    }


def _summary(recorded: Trace, output: Path, runs: int, tensorboard: Path | None) -> str:
    imports, calls, cost = recorded.of(Import), recorded.of(InitCall), recorded.one(TracingCost)
    lines = [f"traced {recorded.header.function.module}:{recorded.header.function.handler} → {output}"]
    lines += [_init_line(recorded, number, call, len(calls)) for number, call in enumerate(calls)]
    if calls and not recorded.of(Weight):
        lines.append(
            f"  note      {calls[0].name} returns nothing with weights: let it return the model, or name a function that does"
        )
    if not calls:
        lines.append(f"  init      none was called{what_to_name(recorded.header.function.init, recorded.one(WeightsBuilt))}")
    lines += [f"  note      {further_call(call)}" for call in recorded.of(FurtherCall)]
    for invocation in recorded.of(Invocation):
        tax = invocation.first_launch_tax_s
        again = "once only" if invocation.second_call_s is None else f"again {invocation.second_call_s:.2f} s"
        lines.append(
            f"  event {invocation.event}   first call {invocation.first_call_s:.2f} s, {again}: "
            + _tax_text(tax)
            + f"; {invocation.operators} operators"
        )
    lines.append(f"  the handler ran {count_text(runs, 'time')}")
    lines.append(f"  imports   {len(imports)} modules, {sum(record.self_s for record in imports):.1f} s")
    if cost is not None:
        hooks = cost.hooks_s + cost.digests_s + cost.profiler_s
        lines.append(f"  tracing   {hooks:.1f} s of {cost.total_s:.1f} s went into tracing itself")
    if tensorboard is not None:
        lines.append(f"profile: tensorboard --logdir {tensorboard}")
    return "\n".join(lines)


def _init_line(recorded: Trace, number: int, call: InitCall, calls: int) -> str:
    """Return what one recorded call of init made; where there are several, of which event."""
    weights = [weight for weight in recorded.of(Weight) if weight.call == number]
    used = {use.weight for use in recorded.of(FirstUse)} & {weight.index for weight in weights}
    size = size_text(sum(weight.nbytes for weight in weights))
    kind = "static" if call.static else "not marked static"
    event = f"event {call.event}: " if calls > 1 else ""
    made = f"{count_text(len(weights), 'weight')}, {size}, {len(used)} used"
    return f"  init      {event}{call.name} ({kind}), {call.duration_s:.1f} s, {made}"


def _tax_text(tax: float | None) -> str:
    if tax is None:
        return "first-launch tax unknown"
    return f"first-launch tax {tax:.2f} s" if tax > 0 else "no first-launch tax seen"
