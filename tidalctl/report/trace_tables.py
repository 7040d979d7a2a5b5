"""What `tidalctl inspect` says of a trace: a document with everything for `--json`, and its top for a person."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tidalctl.artifacts.trace import records
from tidalctl.artifacts.trace.file import Trace
from tidalctl.report.terminal import count_text, print_facts, print_paragraph, print_table, printable, seconds_text, size_text

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 1


def plain(value: Any) -> Any:
    """A record as builtin values with all of its fields, also those that hold their default."""
    if isinstance(value, msgspec.Struct):
        return {field: plain(getattr(value, field)) for field in value.__struct_fields__}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def trace_document(trace: Trace, path: Path) -> dict[str, Any]:
    """Everything in a trace, joined: imports with whether the handler ran them, weights in access order with their uses."""
    header = trace.header
    environment = trace.one(records.Environment)
    return {
        "schema": SCHEMA,
        "kind": "trace",
        "path": str(path),
        "complete": trace.complete,
        "failure": plain(trace.one(records.Failure)),
        "records": len(trace.records),
        "tidalctl": header.tidalctl,
        "function": plain(header.function),
        "root": header.root,
        "cwd": header.cwd,
        "argv": list(header.argv),
        "events": plain(header.events),
        "vary": list(header.vary),
        "environment": plain(environment.fingerprint) if environment else None,
        "init": plain(trace.of(records.InitCall)),
        "further_inits": plain(trace.of(records.FurtherCall)),
        "built": plain(trace.one(records.WeightsBuilt)),
        "invocations": [
            {**plain(call), "first_launch_tax_s": call.first_launch_tax_s} for call in trace.of(records.Invocation)
        ],
        "imports": _imports(trace),
        "late_imports": [found.name for found in trace.of(records.Import) if found.phase == "handler"],
        "weights": _weights(trace),
        "kernels": _kernels(trace),
        "files": plain(trace.of(records.FileOpened)),
        "paths_asked": plain(trace.of(records.PathAsked)),
        "sources_read": [file for record in trace.of(records.SourcesRead) for file in record.files],
        "import_work": _import_work(trace),
        "cost": plain(trace.one(records.TracingCost)),
    }


def _import_work(trace: Trace) -> dict[str, Any]:
    """How much of it there was, and where."""
    work = trace.one(records.ImportWork) or records.ImportWork()
    scans = [{"function": f"{scan.module}.{scan.function}", "path": scan.path} for scan in work.scans]
    return {"texts": len(work.texts), "patterns": len(work.patterns), "scans": scans}


def _imports(trace: Trace) -> list[dict[str, Any]]:
    """Imports, dearest first. `ran` is None where it can't be known: no handler was traced, or the module is no Python code."""
    executed = trace.of(records.Executed)
    files = {file for record in executed for file in record.files}
    found = [
        {**plain(module), "ran": module.file in files if executed and module.file.endswith(".py") else None}
        for module in trace.of(records.Import)
    ]
    return sorted(found, key=lambda module: -module["self_s"])


def _weights(trace: Trace) -> list[dict[str, Any]]:
    """Weights in access order: by the first event that used them, then by the order in it. Never-used ones come last."""
    uses: dict[int, list[records.FirstUse]] = {}
    for use in trace.of(records.FirstUse):
        uses.setdefault(use.weight, []).append(use)
    written: dict[int, list[records.WeightWritten]] = {}
    for write in trace.of(records.WeightWritten):
        written.setdefault(write.weight, []).append(write)
    found = []
    for weight in trace.of(records.Weight):
        own = sorted(uses.get(weight.index, ()), key=lambda use: (use.event, use.ordinal))
        found.append({**plain(weight), "first_uses": plain(own), "written": plain(written.get(weight.index, ()))})
    return sorted(found, key=_access_order)


def _access_order(weight: dict[str, Any]) -> tuple[bool, int, int, int]:
    first = weight["first_uses"][0] if weight["first_uses"] else {"event": 0, "ordinal": 0}
    return not weight["first_uses"], first["event"], first["ordinal"], weight["index"]


def _kernels(trace: Trace) -> list[dict[str, Any]]:
    kernels = ({"event": kernel.event, **plain(kernel.signature)} for kernel in trace.of(records.Kernel))
    return sorted(kernels, key=lambda kernel: -kernel["time_s"])


def show_trace(document: dict[str, Any], console: "Console") -> None:
    state = "complete" if document["complete"] else "incomplete"
    console.print(f"trace {printable(document['path'])}: {state}, {count_text(document['records'], 'record')}", style="bold")
    cost, failure = document["cost"], document["failure"]
    print_facts(
        console,
        [
            *_failure_lines(failure),
            ("function", function_text(document["function"])),
            ("project", document["root"]),
            ("arguments", " ".join(document["argv"])),
            *(
                (f"event {index}", event["text"][:200] or f"sha256 {event['digest']}")
                for index, event in enumerate(document["events"])
            ),
            ("environment", environment_text(document["environment"])),
            ("tracing cost", _cost_text(cost) if cost else ""),
        ],
    )
    _show_calls(document, console)
    _show_imports(document, console)
    _show_weights(document["weights"], console)
    _show_kernels(document["kernels"], console)
    print_paragraph(console, "plan", _plan(document))


def _failure_lines(failure: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What was raised, as many lines as it has: of a syntax error, where it lies and what stands there."""
    lines = f"in {failure['phase']}: {failure['message']}".splitlines() if failure else []
    return [("" if number else "failed", line) for number, line in enumerate(lines)]


def function_text(function: dict[str, Any]) -> str:
    init = f", init {', '.join(function['inits'])}" if function["inits"] else ""
    encode = ", its outputs converted to JSON (--encode)" if function["encode"] else ""
    shape = f" ({function['shape']})" if function["shape"] else ""
    return f"{function['module']}:{function['handler']}{shape} in {function['source']}{init}{encode}"


def environment_text(made: dict[str, Any] | None) -> str:
    if made is None:
        return ""
    cuda = f", CUDA {made['cuda']}" if made["cuda"] else ""
    device = f"{made['device']}, {made['cpu_capability']}" if made["device"] != "cpu" else f"CPU with {made['cpu_capability']}"
    return (
        f"{made['implementation']} {made['python']}, torch {made['torch']}{cuda}; "
        f"{made['system']} {made['machine']}, {device}; {count_text(len(made['distributions']), 'distribution')}"
    )


def _cost_text(cost: dict[str, Any]) -> str:
    parts = (f"{name} {seconds_text(cost[f'{name}_s'])}" for name in ("hooks", "digests", "profiler"))
    kept = f"; profile kept in {cost['profile']}" if cost["profile"] else ""
    return f"{seconds_text(cost['total_s'])} ({', '.join(parts)}){kept}"


def _show_calls(document: dict[str, Any], console: "Console") -> None:
    print_table(
        console,
        "init",
        ("init", "event>", "took>", "operators>", "threads>", "reads of the event", "peak memory>"),
        [
            (
                call["name"],
                str(call["event"]),
                seconds_text(call["duration_s"]),
                f"{call['operators']:,}",
                str(call["threads"]),
                _reads_text(call),
                size_text(call["peak_rss"]),
            )
            for call in document["init"]
        ],
    )
    print_table(
        console,
        "calls of the handler",
        ("event>", "first>", "first piece>", "second>", "launch tax>", "pieces>", "peak memory>", "same"),
        [
            (
                str(call["event"]),
                seconds_text(call["first_call_s"]),
                seconds_text(call["first_piece_s"]),
                seconds_text(call["second_call_s"]),
                seconds_text(call["first_launch_tax_s"]),
                str(call["pieces"]),
                size_text(call["peak_rss"]),
                "" if call["second_call_s"] is None else "yes" if call["repeatable"] else "no",
            )
            for call in document["invocations"]
        ],
    )


def _reads_text(call: dict[str, Any]) -> str:
    if call["static"]:
        return "none (static)"
    return "all of it" if call["event_whole"] else ", ".join(call["event_reads"]) or "none"


def _show_imports(document: dict[str, Any], console: "Console") -> None:
    imports = document["imports"]
    idle = [module for module in imports if module["ran"] is False]
    title = f"imports: {count_text(len(imports), 'module')}, {seconds_text(sum(module['self_s'] for module in imports))}"
    if idle:
        title += f"; {len(idle):,} ran nothing in the handler, {seconds_text(sum(module['self_s'] for module in idle))}"
    ran = {True: "yes", False: "no", None: "–"}
    rows = [
        (module["name"], seconds_text(module["self_s"]), seconds_text(module["total_s"]), module["phase"], ran[module["ran"]])
        for module in imports
    ]
    print_table(console, title, ("module~", "self>", "with its own>", "in", "ran"), rows)
    late = document["late_imports"]
    print_table(console, f"late imports, inside the handler: {len(late):,}", ("module~",), [(name,) for name in late])


def _show_weights(weights: list[dict[str, Any]], console: "Console") -> None:
    used = [weight for weight in weights if weight["first_uses"]]
    idle = [weight for weight in weights if not weight["first_uses"]]
    written = [weight for weight in weights if weight["written"]]
    rows = [
        (
            str(place),
            weight_name(weight["names"]),
            f"{weight['dtype']} {shape_text(weight['shape'])}",
            size_text(weight["nbytes"]),
            weight["first_uses"][0]["operator"],
            seconds_text(weight["first_uses"][0]["time_s"]),
        )
        for place, weight in enumerate(used)
    ]
    columns = ("#>", "weight~", "kind", "size>", "first used by", "at>")
    print_table(console, f"weights in access order: {_amount(used)}", columns, rows)
    unused = [(weight_name(weight["names"]), str(weight["dtype"]), size_text(weight["nbytes"])) for weight in idle]
    print_table(console, f"weights never used: {_amount(idle)}", ("weight~", "kind", "size>"), unused)
    writes = [(weight_name(weight["names"]), str(weight["written"][0]["operator"])) for weight in written]
    print_table(console, f"weights written to by the handler: {_amount(written)}", ("weight~", "operator"), writes)


def weight_name(names: list[str]) -> str:
    others = f" (+{len(names) - 1})" if len(names) > 1 else ""
    return (names[0] if names else "unnamed") + others


def shape_text(shape: list[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _amount(weights: list[dict[str, Any]]) -> str:
    return f"{count_text(len(weights), 'weight')}, {size_text(sum(weight['nbytes'] for weight in weights))}"


def _show_kernels(kernels: list[dict[str, Any]], console: "Console") -> None:
    total = sum(kernel["time_s"] for kernel in kernels)
    launches = sum(kernel["count"] for kernel in kernels)
    rows = [
        (kernel["operator"], f"{kernel['count']:,}", seconds_text(kernel["time_s"]), " ".join(kernel["operands"]))
        for kernel in kernels
    ]
    title = (
        f"kernels: {count_text(len(kernels), 'signature')}, {count_text(launches, 'launch', 'launches')}, {seconds_text(total)}"
    )
    print_table(console, title, ("operator", "count>", "time>", "operands"), rows)


def _plan(document: dict[str, Any]) -> str:
    """What compile makes of this trace, as far as the trace alone can tell."""
    if not document["complete"]:
        return "This trace has no closing record, so compile refuses it: record it again."
    weights = document["weights"]
    used = [weight for weight in weights if weight["first_uses"]]
    idle = [weight for weight in weights if not weight["first_uses"]]
    words = [
        f"compile lays out {_amount(used)}, in this order{f', and the {len(idle):,} never used last' if idle else ''}."
        if weights
        else "The state holds no weights that were seen."
    ]
    if used:
        first, last = (use["first_uses"][0] for use in (used[0], used[-1]))
        words.append(
            f"The handler needs the first weight {seconds_text(first['time_s'])} after its call and the last one after "
            f"{seconds_text(last['time_s'])}: reading hides behind that."
        )
    calls = document["invocations"]
    taxes = [call["first_launch_tax_s"] for call in calls if call["first_launch_tax_s"] is not None]
    if taxes:
        words.append(
            f"Prewarming {count_text(len(document['kernels']), 'kernel')} can take up to {seconds_text(max(*taxes, 0))} off."
        )
    if any(not call["repeatable"] for call in calls):
        words.append("Two calls gave different outputs, so that compile can compare weights only.")
    return " ".join(words)
