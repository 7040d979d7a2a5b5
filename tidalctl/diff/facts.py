"""What is compared of a trace, a bundle or a bench: one record, whichever it is."""

import json
import statistics
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.bundle.directory import open_bundle
from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.artifacts.bundle.provenance import provenance_fields
from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.records import Fingerprint, Record
from tidalctl.artifacts.trace.file import read_trace
from tidalctl.artifacts.trace.records import Environment, FirstUse, Import, InitCall, Kernel, Weight


class ImportedModule(Record, frozen=True, array_like=True):
    """One module of a start: seconds of its own, and who asked for it first. Both unknown where the artifact does not say."""

    self_s: float | None = None
    importer: str = ""


class ComparedWeight(Record, frozen=True):
    """A weight: its place in the access order, None where it is not used; and what it is."""

    place: int | None
    nbytes: int
    dtype: str
    shape: tuple[int, ...]
    content: str  # its digest


class Facts(Record, frozen=True):
    """What is known of one artifact; a bench knows its times alone.

    Attributes:
        kind: "trace", "bundle" or "bench".
        modules: By name, in the order of their imports.
        weights: By name.
        kernels: Signatures of launches, in words.
        pins: Conditions: what is compared before a start, by name, with its value or a digest of it.
        files: Bytes of the files that are shipped.
        strategy: How the state is made; for a trace, how init is called.
        causes: Why something is done the plain way.
        times: Seconds to the first output, and by phase, by the name of a start.
    """

    kind: str
    function: str = ""
    modules: dict[str, ImportedModule] = {}
    weights: dict[str, ComparedWeight] = {}
    kernels: tuple[str, ...] = ()
    pins: dict[str, str] = {}
    files: dict[str, int] = {}
    strategy: str = ""
    causes: tuple[str, ...] = ()
    times: dict[str, float] = {}


class _Imports(msgspec.Struct, frozen=True):
    imports: dict[str, ImportedModule] = {}


def read_facts(path: Path) -> Facts:
    """Read what is compared of the artifact at `path`. Raises TidalError."""
    if path.is_dir():
        return bundle_facts(open_bundle(path), path)
    if not path.exists():
        raise TidalError(f"no trace, bundle or bench at {path}", "give two of them: tidalctl diff old.bundle new.bundle")
    with path.open("rb") as file:
        beginning = file.read(64).lstrip()
    return _bench_facts(path) if beginning.startswith(b"{") else _trace_facts(path)


def bundle_facts(manifest: Manifest, path: Path) -> Facts:
    """Return what is compared of a bundle."""
    noted = provenance_fields(path, _Imports)
    pins = {f"variable {name}": value for state in manifest.held for name, value in state.guard.environ.items()}
    pins |= _environment(manifest.fingerprint)
    weights = {
        weight.name: ComparedWeight(weight.first_use, weight.nbytes, weight.dtype, tuple(weight.shape), weight.sha256)
        for weight in manifest.weights
    }
    return Facts(
        kind="bundle",
        function=f"{manifest.function.module}:{manifest.function.handler}",
        modules={name: noted.imports.get(name, ImportedModule()) for name in manifest.modules},
        weights=weights,
        kernels=_kernels(path),
        pins=pins,
        files={name: file.size for name, file in manifest.files.items()},
        strategy=manifest.strategy,
        causes=tuple(f"{lost.part}: {lost.cause} ({lost.code})" for lost in manifest.fallbacks),
    )


def _environment(fingerprint: Fingerprint) -> dict[str, str]:
    """Return Python, platform, device and packages, by name."""
    fields: dict[str, Any] = msgspec.to_builtins(fingerprint)
    packages = {f"package {name}": version for name, version in fields.pop("distributions").items()}
    return {name.replace("_", " "): value for name, value in fields.items()} | packages


def _kernels(path: Path) -> tuple[str, ...]:
    try:
        kernels = json.loads((path / "prewarm.json").read_bytes())["kernels"]
    except (OSError, ValueError, KeyError):
        return ()
    return tuple(sorted({f"{one['operator']}({', '.join(one['operands'])})" for one in kernels}))


def _trace_facts(path: Path) -> Facts:
    trace = read_trace(path)
    uses = {use.weight: place for place, use in reversed(list(enumerate(trace.of(FirstUse))))}
    environment, call = trace.one(Environment), trace.one(InitCall)
    return Facts(
        kind="trace",
        function=f"{trace.header.function.module}:{trace.header.function.handler}",
        modules={one.name: ImportedModule(one.self_s, one.importer) for one in trace.of(Import) if one.phase != "start"},
        weights={
            one.names[0]: ComparedWeight(uses.get(one.index), one.nbytes, one.dtype, tuple(one.shape), one.digest)
            for one in trace.of(Weight)
        },
        kernels=tuple(sorted({f"{one.signature.operator}({', '.join(one.signature.operands)})" for one in trace.of(Kernel)})),
        pins=_environment(environment.fingerprint) if environment is not None else {},
        strategy="" if call is None else f"{call.name} ({'static' if call.static else 'not marked static'})",
    )


def _bench_facts(path: Path) -> Facts:
    try:
        body = json.loads(path.read_bytes())
        samples, function = body["samples"], body["bundle"].get("function", "")
        groups: dict[str, list[dict[str, Any]]] = {}
        for sample in samples:
            groups.setdefault(f"{sample['cache']} {sample['variant']}", []).append(sample)
        times: dict[str, float] = {}
        for name, found in groups.items():
            times[f"{name}: first output"] = statistics.median(one["ttft_s"] for one in found)
            for phase in dict.fromkeys(phase for one in found for phase in one["phases"]):
                times[f"{name}: {phase}"] = statistics.median(one["phases"].get(phase, 0.0) for one in found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TidalError(f"{path} is not what bench --json writes: {error}", "give a trace, a bundle, or that") from None
    return Facts(kind="bench", function=function, times=times)
