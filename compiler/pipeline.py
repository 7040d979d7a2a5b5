"""`compile`: trace → snapshot → classify → ship → write → prove → publish, each a small pass."""

import datetime
import json
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tidalctl import __version__
from tidalctl.artifacts.bundle import (
    clear_stale_partials,
    file_digest,
    partial_name,
    publish,
    refuse_existing,
    remove,
    sync_tree,
)
from tidalctl.artifacts.errors import CheckFailed, TidalError
from tidalctl.artifacts.manifest import (
    CODE,
    DYNAMIC_INIT,
    MANIFEST,
    PREWARM,
    PROVENANCE,
    SCHEMA,
    SKELETON,
    BundleFile,
    BundleWeight,
    Fallback,
    Manifest,
    encode_manifest,
    seal,
)
from tidalctl.artifacts.records import KernelSignature, Record
from tidalctl.artifacts.trace import (
    Environment,
    Executed,
    FileOpened,
    FirstUse,
    Import,
    InitCall,
    Invocation,
    Kernel,
    Trace,
    Weight,
    WeightWritten,
    read_trace,
)
from tidalctl.compiler.classify import Classification, classify
from tidalctl.compiler.dynamic import dynamic_init_source
from tidalctl.compiler.explain import Verdict
from tidalctl.compiler.processes import plain_outputs, run_from_bundle, same_output, take_snapshot
from tidalctl.compiler.ship import Shipment, copy_shipment, plan_shipment, readahead_of
from tidalctl.compiler.snapshot import SnapshotReport, SnapshotRequest

Progress = Callable[[int, int], None]
Say = Callable[[str], None]


class Compiled(Record, frozen=True):
    """A bundle in its place, and what there is to say about it."""

    manifest: Manifest
    verdict: Verdict
    call: InitCall
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def compile_trace(
    path: Path,
    output: Path,
    *,
    shard_size: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
) -> Compiled:
    """Make the bundle `output` from the trace at `path`, prove it, and give it its name.

    The function's init is run once more for its snapshot, so its project and checkpoint must still be there. Raises TidalError
    where the trace can't be used, the output exists, or what it was traced with has changed.
    """
    refuse_existing(output, force)
    trace = read_trace(path)
    call = _usable(trace, path)
    output = output.absolute()
    clear_stale_partials(output)
    partial = partial_name(output)
    partial.mkdir()
    try:
        with tempfile.TemporaryDirectory(prefix="tidalctl-") as work:
            compiled = _build(trace, call, partial, Path(work), shard_size, progress, say)
        sync_tree(partial)
        publish(partial, output)
    finally:
        remove(partial)
    return compiled


def _usable(trace: Trace, path: Path) -> InitCall:
    """The trace's init, where all is there that a compile needs."""
    if not trace.complete:
        raise TidalError(f"{path} is incomplete: the function raised or was killed", f"what it did: tidalctl inspect {path}")
    call = trace.one(InitCall)
    if call is None:
        raise TidalError(
            f"{path}: the function called no init, so there is no state to take",
            "mark the function that builds it with @tidalctl.init, or name it: tidalctl trace … --init app:load",
        )
    source = Path(trace.header.root, trace.header.function.source)
    if not source.is_file():
        raise TidalError(f"{source}, which was traced, is gone", "trace the function where it is now")
    for record in trace.of(FileOpened):
        if record.phase == "init" and not record.mapped and record.size > 0 and not Path(record.path).exists():
            raise TidalError(f"{record.path}, which init read in the trace, is gone", "put it back, or trace again without it")
    return call


def access_order(trace: Trace) -> list[FirstUse]:
    """The first use of each weight over all events, in order; weights that only a later event used follow."""
    first: dict[int, FirstUse] = {}
    for use in trace.of(FirstUse):
        first.setdefault(use.weight, use)
    return list(first.values())


def _build(
    trace: Trace, call: InitCall, partial: Path, work: Path, shard_size: int | None, progress: Progress | None, say: Say
) -> Compiled:
    header, weights = trace.header, trace.of(Weight)
    names = {weight.index: weight.names[0] for weight in weights}
    order = tuple(names[use.weight] for use in access_order(trace))
    request = SnapshotRequest(
        function=header.function,
        root=header.root,
        argv=header.argv,
        events=tuple(event.text for event in header.events),
        report=str(work / "snapshot.json"),
        folder=str(partial),
        order=order,
        shard_size=shard_size,
        ambient=call.ambient,
    )
    say("running the function once more, plainly, to take its state")
    report = take_snapshot(header, request, progress)
    _refuse_changed_checkpoint(trace, weights, report)
    reproducible = _reproducible(trace, report, work, say)
    event = json.loads(header.events[call.event].text)
    shipment = plan_shipment(trace)
    copy_shipment(shipment, Path(header.root), partial / CODE)
    classification = classify(call, weights, report, event)
    manifest = _write(trace, call, classification, report, shipment, reproducible, partial)
    say("answering the traced events from the bundle in a fresh process")
    manifest = _prove(trace, call, manifest, classification, report, shipment, partial)
    notes = classification.notes
    if report.kept_globals and manifest.strategy == "snapshot":
        notes = (*notes, f"init also sets {', '.join(report.kept_globals)}: kept with the state")
    verdict = Verdict(events=len(header.events), reproducible=reproducible)
    return Compiled(manifest=manifest, verdict=verdict, call=call, notes=notes, warnings=shipment.warnings)


def _refuse_changed_checkpoint(trace: Trace, weights: list[Weight], report: SnapshotReport) -> None:
    """A file that init reads and that changed since the trace, with weights that changed too, makes the trace worthless."""
    stored = {alias: report.digests.get(name) for name, aliases in report.names.items() for alias in aliases}
    if all(stored.get(weight.names[0]) in (weight.digest, None) for weight in weights) and not report.cause:
        return
    for record in trace.of(FileOpened):
        if record.phase == "init" and not record.mapped:
            status = os.stat(record.path)
            if (status.st_size, status.st_mtime_ns) != (record.size, record.mtime_ns):
                raise TidalError(
                    f"{record.path} has changed since the trace", f"trace again: tidalctl trace {_target(trace)} …"
                )


def _target(trace: Trace) -> str:
    function = trace.header.function
    return f"{Path(trace.header.root, function.source)}:{function.handler}"


def _reproducible(trace: Trace, report: SnapshotReport, work: Path, say: Say) -> bool:
    """Whether two plain runs answer alike. The traced run is the first; only where it differs is a third one needed."""
    traced = [invocation.output for invocation in trace.of(Invocation)]
    from tidalctl.artifacts.records import digest_json

    if [digest_json(json.loads(text)) for text in report.outputs] == traced:
        return True
    say("its answer is not the traced one; running it again to see whether it ever is the same")
    again = plain_outputs(trace.header, [event.text for event in trace.header.events], work)
    return all(same_output(json.loads(one), json.loads(other)) for one, other in zip(report.outputs, again, strict=True))


def _write(
    trace: Trace,
    call: InitCall,
    classification: Classification,
    report: SnapshotReport,
    shipment: Shipment,
    reproducible: bool,
    partial: Path,
) -> Manifest:
    """Write everything but the snapshot, which is there already, and the manifest over all of it."""
    header = trace.header
    snapshot = classification.strategy == "snapshot"
    if not snapshot:
        for name in (SKELETON, *(shard.file for shard in report.shards)):
            remove(partial / name)
    function = f"{header.function.module}:{header.function.handler}"
    (partial / DYNAMIC_INIT).write_text(
        dynamic_init_source(function, call.name, classification.strategy, classification.guard), encoding="utf-8"
    )
    (partial / PREWARM).write_bytes(_prewarm(trace))
    digests = {shard.file: BundleFile(size=shard.size, sha256=shard.sha256) for shard in report.shards} if snapshot else {}
    others = sorted(
        p for p in partial.rglob("*") if p.is_file() and p.name not in digests and p.name not in (MANIFEST, PROVENANCE)
    )
    files = digests | {
        p.relative_to(partial).as_posix(): BundleFile(size=p.stat().st_size, sha256=file_digest(p)) for p in others
    }
    modules: list[Import] = trace.of(Import)
    ran = set((trace.one(Executed) or Executed(files=())).files)
    environment = trace.one(Environment)
    if environment is None:
        raise TidalError("the trace holds no fingerprint", "record it again")
    manifest = Manifest(
        schema=SCHEMA,
        tidalctl=__version__,
        function=header.function,
        init=call.name,
        strategy=classification.strategy,
        guard=classification.guard,
        fingerprint=environment.fingerprint,
        events=tuple(event.digest for event in header.events),
        reproducible=reproducible,
        files=dict(sorted(files.items())),
        weights=_weights(trace, report) if snapshot else (),
        globals=report.globals if snapshot else (),
        modules=tuple(record.name for record in modules),
        executed=tuple(record.name for record in modules if record.file in ran),
        readahead=readahead_of(trace, header.root),
        fallbacks=classification.fallbacks,
    )
    sealed = seal(manifest)
    (partial / MANIFEST).write_bytes(encode_manifest(sealed))
    (partial / PROVENANCE).write_bytes(_provenance(trace))
    return sealed


def _weights(trace: Trace, report: SnapshotReport) -> tuple[BundleWeight, ...]:
    """The weights as they lie in the files, with what the trace knows about each."""
    traced = {weight.names[0]: weight for weight in trace.of(Weight)}
    uses = {use.weight: (place, use) for place, use in enumerate(access_order(trace))}
    written = {record.weight for record in trace.of(WeightWritten)}
    found = []
    for placement in report.placements:
        entry = placement.entry
        weight = traced.get(entry.name)
        place, use = uses.get(weight.index, (None, None)) if weight is not None else (None, None)
        found.append(
            BundleWeight(
                name=entry.name,
                dtype=entry.dtype,
                shape=entry.shape,
                nbytes=entry.nbytes,
                device=report.devices[entry.name],
                file=placement.file,
                offset=placement.offset,
                sha256=report.digests[entry.name],
                first_use=place,
                first_use_s=round(use.time_s, 6) if use is not None else None,
                module=use.module if use is not None else "",
                operator=use.operator if use is not None else "",
                written=weight is not None and weight.index in written,
                folded=weight.operators if weight is not None else (),
                sources=tuple(_source_name(s.file, s.key, trace) for s in weight.sources)
                if weight is not None
                else ("unknown",),
            )
        )
    return tuple(found)


def _source_name(file: str, key: str, trace: Trace) -> str:
    """A source without the machine's paths: relative to the project, or the file's name."""
    root = Path(trace.header.root)
    path = Path(file)
    name = path.relative_to(root).as_posix() if path.is_absolute() and path.is_relative_to(root) else path.name
    return f"{name}#{key}" if key else name


def _prewarm(trace: Trace) -> bytes:
    """Kernel signatures over all events, each once, in the order of most time."""
    merged: dict[tuple[str, tuple[str, ...]], KernelSignature] = {}
    for record in trace.of(Kernel):
        signature = record.signature
        key = (signature.operator, signature.operands)
        if known := merged.get(key):
            signature = msgspec.structs.replace(
                known,
                count=known.count + signature.count,
                time_s=known.time_s + signature.time_s,
                kernels=tuple(sorted({*known.kernels, *signature.kernels})),
            )
        merged[key] = signature
    kernels = sorted(merged.values(), key=lambda signature: -signature.time_s)
    return json.dumps({"schema": 1, "kernels": msgspec.to_builtins(kernels)}, indent=1, sort_keys=True).encode() + b"\n"


def _provenance(trace: Trace) -> bytes:
    """Clock, host and absolute paths: what helps a person, and the bench, and is no part of the bundle's identity."""
    header = trace.header
    opened = [record.path for record in trace.of(FileOpened) if not record.mapped and record.size]
    code = [record.file for record in trace.of(Import) if record.file] + [r.path for r in trace.of(FileOpened) if r.mapped]
    body: dict[str, Any] = {
        "compiled": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "root": header.root,
        "cwd": header.cwd,
        "argv": list(header.argv),
        "read": sorted(dict.fromkeys(opened)),
        "code_files": sorted(dict.fromkeys(code)),
    }
    return json.dumps(body, indent=1).encode() + b"\n"


def _prove(
    trace: Trace,
    call: InitCall,
    manifest: Manifest,
    classification: Classification,
    report: SnapshotReport,
    shipment: Shipment,
    partial: Path,
) -> Manifest:
    """Answer every traced event from the bundle in a fresh process. A snapshot that answers wrongly is given up for eager init.

    Raises CheckFailed where even that answers otherwise than the plain function.
    """
    difference = _difference(trace, manifest, report, partial)
    if difference and manifest.strategy == "snapshot":
        given_up = Fallback(part="state", strategy="eager", cause=f"the proof: {difference}")
        classification = msgspec.structs.replace(classification, strategy="eager", fallbacks=(given_up,))
        manifest = _write(trace, call, classification, report, shipment, manifest.reproducible, partial)
        difference = _difference(trace, manifest, report, partial)
    if difference:
        raise CheckFailed(f"the bundle does not answer as the plain function does: {difference}", "nothing was written")
    return manifest


def _difference(trace: Trace, manifest: Manifest, report: SnapshotReport, partial: Path) -> str:
    for index, (event, expected) in enumerate(zip(trace.header.events, report.outputs, strict=True)):
        answer = run_from_bundle(partial, trace.header, event.text)
        if "failed" in answer:
            return f"event {index}: {answer['failed']}"
        if manifest.reproducible and not same_output(answer["output"], json.loads(expected)):
            return f"event {index}: the answer differs"
    return ""
