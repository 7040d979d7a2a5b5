"""Why a bundle is as it is, in words: what `compile` says, and what `--explain` adds."""

from tidalctl.artifacts.bundle.manifest import CODE, BundleWeight, Manifest
from tidalctl.artifacts.cause import PAGE
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace.records import InitCall
from tidalctl.compiler.snapshot.records import is_generator
from tidalctl.report.needs import file_text, needs_text
from tidalctl.report.pins import pinned_by
from tidalctl.report.terminal import count_text, size_text


class Verdict(Record, frozen=True):
    """What the proof found: how many events were answered alike, or why they can't be compared; and what tracing init cost."""

    events: int
    reproducible: bool
    checked: int = 0  # of the events, those of --check-event
    static: tuple[str, ...] = ()  # weights that were the same for all events
    further: tuple[str, ...] = ()  # states besides the main one, in words
    init_s: float = 0.0
    traced_init_s: float = 0.0
    first_uses: dict[str, float] = {}  # seconds from the start of the handler's call under tracing, by weight


_GENERATOR = "the state of torch's random generator"
_NO_STATE = "none from the bundle, which has the function's code and imports"
_HOW = {
    "snapshot": "snapshot",
    "script": "script (a snapshot, of which dynamic_init.py makes what depends on the event)",
    "replay": "replay (init as it is, with its reads answered from the bundle)",
    "eager": "eager (init as it is)",
}


def summary(manifest: Manifest, verdict: Verdict, notes: tuple[str, ...], warnings: tuple[str, ...]) -> list[str]:
    """The lines that every compile ends with."""
    weights = weights_of(manifest)
    never = sum(weight.nbytes for weight in weights if weight.first_use is None)
    size = size_text(sum(weight.nbytes for weight in weights))
    state = f"{_HOW[manifest.strategy]}: {count_text(len(weights), 'weight')}, {size} in access order"
    lines = [f"  state     {state if manifest.init else _NO_STATE}"]
    if never:
        lines[0] += f" ({size_text(never)} never used, last)"
    if len(weights) < len(manifest.weights):
        lines[0] += f"; besides, {_GENERATOR}"
    lines += [f"  besides   {state}" for state in verdict.further]
    if not verdict.reproducible:
        lines.append(
            "  proof     the plain function's own runs differ (sampling without a seed?): weights compared, outputs not"
        )
    else:
        events = count_text(verdict.events, "event") + (f" ({verdict.checked} of them not traced)" if verdict.checked else "")
        lines.append(f"  proof     {events} answered by a fresh process exactly as by the plain function")
    parts = shipped_parts(manifest).items()
    ships = [f"{part} {count_text(len(sizes), 'file')}, {size_text(sum(sizes))}" for part, sizes in parts if sizes]
    lines.append(f"  ships     {'; '.join(ships)}")
    if needs := needs_text(manifest.needs, manifest.strategy):
        lines.append(f"  needs     {needs}")
    if pinned := pinned_by(manifest):
        lines.append(f"  pinned by {', '.join(pinned)}")
    lines += [f"  fallback  {fallback}" for fallback in manifest.fallbacks]
    if manifest.fallbacks:
        lines[-1] += f"; see {PAGE}#{manifest.fallbacks[-1].code}"
    lines += [f"  note      {_indented(note)}" for note in notes]
    lines += [f"  warning   {warning}" for warning in warnings]
    lines.append(f"  digest    {manifest.digest}")
    return lines


def shipped_parts(manifest: Manifest) -> dict[str, list[int]]:
    """Return the sizes of what the bundle holds of the project, as code and as data, and of its weights."""
    shards = {weight.file for weight in manifest.weights}
    parts: dict[str, list[int]] = {"code": [], "data": [], "weights": []}
    for name, file in manifest.files.items():
        if name in shards:
            parts["weights"].append(file.size)
        elif name.startswith(f"{CODE}/"):
            parts["code" if name.endswith(".py") else "data"].append(file.size)
    return parts


def weights_of(manifest: Manifest) -> list[BundleWeight]:
    """The state's weights: of what lies in the weights file, all but states of random generators."""
    return [weight for weight in manifest.weights if not is_generator(weight.name)]


def explanation(manifest: Manifest, call: InitCall | None, verdict: Verdict) -> list[str]:
    """How each part of the state is made and why, the layout with sizes and first uses, what was folded, and what fell back."""
    lines = ["how the state is made:", *_parts(manifest, call), "", "layout, in the order of first use:"]
    lines.append(f"  {'size':>10}  {'first use':>10}  weight")
    for weight in manifest.weights:
        used = verdict.first_uses.get(weight.name)
        first = "never" if used is None else f"{used * 1e3:8.1f} ms"
        by = f"  ← {weight.module or 'the handler'}, {weight.operator}" if weight.operator else ""
        what = by or (f"  ← {_GENERATOR}, no weight" if is_generator(weight.name) else "")
        lines.append(f"  {weight.nbytes:>10,}  {first:>10}  {weight.name} {weight.dtype}{list(weight.shape)}{what}")
    lines += ["", "folded, so that it need not run again:"]
    folded: dict[str, list[int]] = {}
    for weight in weights_of(manifest):
        if weight.name not in manifest.dynamic:  # those run again in each start
            folded.setdefault(_lineage(weight), []).append(weight.nbytes)
    for how, sizes in sorted(folded.items(), key=lambda item: -sum(item[1])):
        noun = "weight, " if len(sizes) == 1 else "weights,"
        lines.append(f"  {len(sizes):>5} {noun} {size_text(sum(sizes)):>10}  {how}")
    plainly = f", and {verdict.init_s:.1f} s plainly" if verdict.init_s else ""
    if call is not None:
        lines.append(f"  {call.name} as a whole took {verdict.traced_init_s:.1f} s in the trace{plainly}")
    lines += ["", "fell back:"]
    lines += [f"  {fallback}" for fallback in manifest.fallbacks] or ["  nothing"]
    lines += ["", "ships:"]
    lines += [f"  {file.size:>10,}  {name}" for name, file in manifest.files.items() if name.startswith(f"{CODE}/")]
    if manifest.needs:
        lines += ["", "needs, where it runs:"]
        lines += [
            f"  {needed.phase:<8} {file_text(needed)}{' (may be absent)' if needed.optional else ''}"
            for needed in manifest.needs
        ]
    written = [weight.name for weight in manifest.weights if weight.written]
    if written:
        lines += ["", f"written to by the handler, each time in a copy of its own: {', '.join(written)}"]
    return lines


def _lineage(weight: BundleWeight) -> str:
    """What made a weight: the files that it was read from, and the operators that followed."""
    if weight.sources == ("unknown",):
        return "made outside of torch's operators: kept as it was"
    files = sorted({source.rpartition("#")[0].rpartition("/")[2] or source for source in weight.sources})
    return f"{', '.join(files) or 'made by operators'}: {' → '.join(weight.folded) or 'read as it is'}"


def _parts(manifest: Manifest, call: InitCall | None) -> list[str]:
    """Each part of the state with its strategy and the reason for it."""
    dynamic = len(manifest.dynamic)
    lines = []
    if manifest.strategy == "snapshot":
        serves = "any event" if manifest.guard.static else "events that agree with the traced one in what init read"
        lines.append(f"  all of it: snapshot, for {serves}")
    elif manifest.strategy == "script":
        static = len([weight for weight in weights_of(manifest) if weight.name not in manifest.dynamic])
        lines.append(
            f"  {count_text(static, 'weight')} and all that is no tensor: snapshot, because the traced events have them alike"
        )
        lines.append(
            f"  {count_text(dynamic, 'weight')}: script, because the events differ there, and dynamic_init.py makes them from the event"
        )
    elif manifest.strategy == "replay":
        lines.append(
            f"  {count_text(len(manifest.answers), 'tensor')} that init reads for every event: answered from the bundle"
        )
        why = "; ".join(fallback.cause for fallback in manifest.fallbacks if fallback.strategy == "replay")
        lines.append(f"  the rest: init as it is, because {why}")
    else:
        lines.append(f"  all of it: eager; cause: {manifest.fallbacks[-1].cause}")
    if call is not None and (manifest.strategy == "script" or (manifest.strategy == "snapshot" and not manifest.guard.static)):
        lines.append(f"  for other events: eager, {call.name} as it is")
    return lines


def _indented(note: str) -> str:
    """A note, the further lines of which stand below its first one."""
    first, *rest = note.splitlines()
    return "\n".join([first, *(" " * 12 + line if line else "" for line in rest)])
