"""Why a bundle is as it is, in words: what `compile` says, and what `--explain` adds."""

from tidalctl.artifacts.manifest import Manifest
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace import InitCall


class Verdict(Record, frozen=True):
    """What the proof found: how many events were answered alike, or why they can't be compared."""

    events: int
    reproducible: bool


def summary(manifest: Manifest, verdict: Verdict, notes: tuple[str, ...], warnings: tuple[str, ...]) -> list[str]:
    """The lines that every compile ends with."""
    weights = sum(weight.nbytes for weight in manifest.weights)
    never = sum(weight.nbytes for weight in manifest.weights if weight.first_use is None)
    lines = [f"  state     {manifest.strategy}: {len(manifest.weights)} weights, {weights / 1e6:.0f} MB in access order"]
    if never and weights:
        lines[0] += f" ({never / 1e6:.0f} MB never used, last)"
    if not verdict.reproducible:
        lines.append(
            "  proof     the plain function's own runs differ (sampling without a seed?): weights compared, outputs not"
        )
    else:
        plural = "event" if verdict.events == 1 else "events"
        lines.append(f"  proof     {verdict.events} {plural} answered by a fresh process exactly as by the plain function")
    lines += [
        f"  fallback  {fallback.part}: {fallback.strategy}, because of {fallback.cause}" for fallback in manifest.fallbacks
    ]
    lines += [f"  note      {note}" for note in notes]
    lines += [f"  warning   {warning}" for warning in warnings]
    lines.append(f"  digest    {manifest.digest}")
    return lines


def explanation(manifest: Manifest, call: InitCall) -> list[str]:
    """The layout with sizes and first uses, what was folded, and what fell back."""
    lines = ["layout, in the order of first use:"]
    lines.append(f"  {'size':>10}  {'first use':>10}  weight")
    for weight in manifest.weights:
        first = "never" if weight.first_use_s is None else f"{weight.first_use_s * 1e3:8.1f} ms"
        by = f"  ← {weight.module or 'the handler'}, {weight.operator}" if weight.operator else ""
        lines.append(f"  {weight.nbytes:>10,}  {first:>10}  {weight.name} {weight.dtype}{list(weight.shape)}{by}")
    lines += ["", "folded, so that it need not run again:"]
    folded: dict[tuple[str, ...], list[int]] = {}
    for weight in manifest.weights:
        files = sorted({source.rpartition("#")[0].rpartition("/")[2] or source for source in weight.sources})
        folded.setdefault((", ".join(files) or "made by operators", " → ".join(weight.folded) or "read as it is"), []).append(
            weight.nbytes
        )
    for (source, how), sizes in sorted(folded.items(), key=lambda item: -sum(item[1])):
        lines.append(f"  {len(sizes):>5} weights, {sum(sizes) / 1e6:8.1f} MB  {source}: {how}")
    lines.append(f"  {call.name} as a whole took {call.duration_s:.1f} s in the trace")
    lines += ["", "fell back:"]
    lines += [f"  {f.part}: {f.strategy}, because of {f.cause}" for f in manifest.fallbacks] or ["  nothing"]
    written = [weight.name for weight in manifest.weights if weight.written]
    if written:
        lines += ["", f"written to by the handler, each time in a copy of its own: {', '.join(written)}"]
    return lines
