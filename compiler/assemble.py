"""The files of a bundle besides the snapshot itself: code, prewarm list, dynamic init, manifest and provenance."""

import datetime
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from tidalctl import __version__
from tidalctl.artifacts.bundle import MANIFEST
from tidalctl.artifacts.bundle.directory import file_digest
from tidalctl.artifacts.bundle.manifest import (
    DYNAMIC_INIT,
    PREWARM,
    PROVENANCE,
    SCHEMA,
    BundleFile,
    BundleWeight,
    Fallback,
    Manifest,
    NeededFile,
    encode_manifest,
    seal,
)
from tidalctl.artifacts.bundle.provenance import file_place, folder_place
from tidalctl.artifacts.bundle.start_times import StartTimes
from tidalctl.artifacts.bundle.weights_file import Placement
from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.records import KernelSignature
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import (
    Environment,
    Executed,
    FileOpened,
    FirstUse,
    Import,
    Kernel,
    SourcesRead,
    Weight,
    WeightWritten,
)
from tidalctl.compiler.access_order import access_order, use_digests
from tidalctl.compiler.attempt import Attempt
from tidalctl.compiler.code.code_pack import pack_code
from tidalctl.compiler.code.import_cache import write_import_cache
from tidalctl.compiler.code.project_files import readahead_of, touched_of
from tidalctl.compiler.code.source_times import source_times
from tidalctl.compiler.script.writer import conditions_source
from tidalctl.compiler.states import numbered_calls
from tidalctl.compiler.traced_files import named_by_events
from tidalctl.compiler.variables import environ_reads


def write_files(
    trace: Trace,
    made: Attempt,
    fallbacks: tuple[Fallback, ...],
    reproducible: bool,
    needs: tuple[NeededFile, ...],
    partial: Path,
) -> Manifest:
    """Write everything but the snapshot, which is there already, and the manifest over all of it."""
    header, init = trace.header, made.report.init or _init_name(trace)
    function = f"{header.function.module}:{header.function.handler}"
    source = made.source if made.kind == "script" else conditions_source(function, init, made.kind, made.guard)
    (partial / DYNAMIC_INIT).write_text(source, encoding="utf-8")
    (partial / PREWARM).write_bytes(_prewarm(trace))
    pack = pack_code(trace, partial)
    scanned = write_import_cache(trace, partial) if pack else []
    reports = (made.report, *made.report.further.values())
    shards = (
        *(shard for report in reports for shard in report.shards),
        *(made.captured.shards if made.answers and made.captured else ()),
    )
    digests = {shard.file: BundleFile(size=shard.size, sha256=shard.sha256) for shard in shards} if made.kind != "eager" else {}
    others = sorted(
        p for p in partial.rglob("*") if p.is_file() and p.name not in digests and p.name not in (MANIFEST, PROVENANCE)
    )
    files = digests | {
        p.relative_to(partial).as_posix(): BundleFile(size=p.stat().st_size, sha256=file_digest(p)) for p in others
    }
    modules: list[Import] = trace.of(Import)
    environment = trace.one(Environment)
    if environment is None:
        raise TidalError("the trace holds no fingerprint", "record it again")
    manifest = Manifest(
        schema=SCHEMA,
        tidalctl=__version__,
        function=header.function,
        init=init,
        strategy=made.kind,
        guard=made.guard,
        fingerprint=environment.fingerprint,
        events=tuple(event.digest for event in header.events),
        reproducible=reproducible,
        files=dict(sorted(files.items())),
        weights=(*_weights(trace, made), *_answer_weights(trace, made)) if made.kind != "eager" else (),
        globals=tuple(sorted({name for report in reports for name in report.globals})) if made.kind != "eager" else (),
        further=made.further if made.kind != "eager" else (),
        modules=tuple(record.name for record in modules),
        readahead=readahead_of(trace, header.root, bool(pack), [folder.name for folder in scanned]),
        fallbacks=fallbacks,
        dynamic=made.dynamic,
        answers=made.answers,
        environ_reads=tuple(sorted(environ_reads(trace).variables)),
        environ_all=bool(environ_reads(trace).all_by),
        needs=needs,
        pack=pack,
    )
    sealed = seal(manifest)
    times = source_times(trace, partial, scanned)
    (partial / MANIFEST).write_bytes(encode_manifest(sealed))
    (partial / PROVENANCE).write_bytes(_provenance(trace, made, sealed, partial, times))
    return sealed


def _init_name(trace: Trace) -> str:
    return next((call.name for number, call in numbered_calls(trace) if number == 0), "")


def _weights(trace: Trace, made: Attempt) -> tuple[BundleWeight, ...]:
    """The weights as they lie in the files, with what the trace knows about each."""
    traced = {weight.names[0]: weight for weight in reversed(trace.of(Weight))}
    names = {weight.index: weight.names[0] for weight in trace.of(Weight)}
    shares = _shares(made)
    uses = {name: (place, use) for place, (name, use) in enumerate(_uses(trace, made).items())}
    written = {shares.get(name, name) for name in (names[record.weight] for record in trace.of(WeightWritten))}
    found = []
    reports = (made.report, *made.report.further.values())
    placed = [(each, placement) for each in reports for placement in each.placements]
    for report, placement in placed:
        name = placement.entry.name
        weight = traced.get(name)
        sources = [_source_name(source.file, source.key, trace) for source in weight.sources] if weight else ["unknown"]
        stored = _stored_weight(placement, report.digests, report.xxh3, uses.get(name))
        found.append(
            msgspec.structs.replace(
                stored,
                device=report.devices[name],
                written=name in written,
                folded=weight.operators if weight else (),
                sources=tuple(sources),
            )
        )
    return tuple(found)


def _shares(made: Attempt) -> dict[str, str]:
    """Return the entries of weights whose content another state has stored, by the weights' own names."""
    reports = (made.report, *made.report.further.values())
    return {name: entry for report in reports for name, entry in report.shares.items()}


def _uses(trace: Trace, made: Attempt) -> dict[str, FirstUse]:
    """Return the first use of each entry of the weights files, in order."""
    shares, found = _shares(made), dict[str, FirstUse]()
    for name, use in access_order(trace).items():
        found.setdefault(shares.get(name, name), use)
    return found


def _answer_weights(trace: Trace, made: Attempt) -> list[BundleWeight]:
    """Return what a replay's reads are answered with."""
    captured = made.captured
    if not made.answers or captured is None:
        return []
    uses = {digest: (place, use) for place, (digest, use) in enumerate(use_digests(trace).items())}
    return [
        _stored_weight(placement, captured.digests, captured.xxh3, uses.get(captured.digests[placement.entry.name]))
        for placement in captured.placements
    ]


def _stored_weight(
    placement: Placement, digests: dict[str, str], xxh3: dict[str, str], used: tuple[int, FirstUse] | None
) -> BundleWeight:
    """Return a weight on the CPU as it lies in its file. `used` is its place in the access order, and its first use."""
    entry = placement.entry
    place, use = used or (None, None)
    return BundleWeight(
        name=entry.name,
        dtype=entry.dtype,
        shape=entry.shape,
        nbytes=entry.nbytes,
        device="cpu",
        file=placement.file,
        offset=placement.offset,
        address=entry.address,
        sha256=digests[entry.name],
        xxh3=xxh3[entry.name],
        first_use=place,
        module=use.module if use is not None else "",
        operator=use.operator if use is not None else "",
    )


def _source_name(file: str, key: str, trace: Trace) -> str:
    """A source without the machine's paths: relative to the project, or the file's name."""
    root = Path(trace.header.root)
    path = Path(file)
    name = path.relative_to(root).as_posix() if path.is_absolute() and path.is_relative_to(root) else path.name
    return f"{name}#{key}" if key else name


def _prewarm(trace: Trace) -> bytes:
    """Kernel signatures over all events, each once, in the order of first launches. Nothing of them is measured."""
    merged: dict[tuple[str, tuple[str, ...]], KernelSignature] = {}
    for record in trace.of(Kernel):
        signature = record.signature
        key = (signature.operator, signature.operands)
        if known := merged.get(key):
            signature = msgspec.structs.replace(known, count=known.count + signature.count)
        merged[key] = msgspec.structs.replace(signature, time_s=0.0, kernels=())
    kernels = list(merged.values())
    return json.dumps({"schema": 1, "kernels": msgspec.to_builtins(kernels)}, indent=1, sort_keys=True).encode() + b"\n"


def first_use_times(trace: Trace, made: Attempt, manifest: Manifest) -> dict[str, float]:
    """Return the time of each weight's first use, in seconds from the start of the handler's call under tracing."""
    uses, answers = _uses(trace, made), {answer.weight for answer in manifest.answers}
    contents = use_digests(trace) if answers else {}
    found = {
        weight.name: contents.get(weight.sha256) if weight.name in answers else uses.get(weight.name)
        for weight in manifest.weights
    }
    return {name: round(use.time_s, 6) for name, use in found.items() if use is not None}


def _provenance(trace: Trace, made: Attempt, manifest: Manifest, partial: Path, times: dict[str, Any]) -> bytes:
    """What was measured, and where the project lies: what helps a person, and the bench, and is no part of the bundle's identity."""
    header = trace.header
    ran = set((trace.one(Executed) or Executed(files=())).files)
    beside = partial.parent / "bundle"  # every bundle in this folder is as far from the project

    def places(files: Iterable[str]) -> list[str]:
        return sorted({file_place(file, header.root, beside) for file in files})

    of_an_event = named_by_events(trace)
    files = [record for record in trace.of(FileOpened) if not of_an_event(record)]
    opened = [record.path for record in files if not record.mapped and record.size]
    code = [record.file for record in trace.of(Import) if record.file] + [r.path for r in files if r.mapped]
    code += [file for record in trace.of(SourcesRead) for file in record.files]
    body: dict[str, Any] = {
        "compiled": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "root": folder_place(header.root, beside),
        "cwd": folder_place(header.cwd, beside),
        "sources": [made.sources.get(file) for file in sorted({answer.file for answer in made.answers})],
        "read": places(opened),
        "code_files": places(file for file in code if file.startswith("/")),
        "touched": touched_of(trace),
        "imports": {one.name: [round(one.self_s, 6), one.importer] for one in trace.of(Import) if one.phase != "start"},
        "executed": [record.name for record in trace.of(Import) if record.file in ran],
        "first_uses": first_use_times(trace, made, manifest),
        **times,
    }
    return json.dumps(body, indent=1).encode() + b"\n"


def add_start_times(bundle: Path, times: StartTimes | None) -> None:
    """Note how the proof's start went, for `tidalctl plan`. Times are no part of the bundle's identity."""
    if times is not None:
        body = json.loads((bundle / PROVENANCE).read_bytes())
        (bundle / PROVENANCE).write_bytes(json.dumps(body | {"start": msgspec.to_builtins(times)}, indent=1).encode() + b"\n")
