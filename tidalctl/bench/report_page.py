"""`tidalctl bench --report`: a whole bench on one page. Before and after as bars, every sample as a dot, every pair in a table."""

from collections.abc import Sequence
from pathlib import Path

from tidalctl.bench.render import notes
from tidalctl.bench.samples import (
    CACHES,
    HOSTED,
    ROWS,
    VARIANTS,
    Cache,
    Measured,
    Sample,
    Variant,
    median_phases,
    of,
    speedup,
    spread,
)
from tidalctl.report import markup
from tidalctl.report.markup import facts, figure, percent, safe, swatch, table
from tidalctl.report.phases import OWN, phase_of
from tidalctl.report.pieces import Part, in_order
from tidalctl.report.terminal import seconds_text

ROOM = 1.2  # of the longest bar: its time stands beside it
NAMES: dict[Variant, tuple[str, str]] = {
    "eager": ("before", "plain Python"),
    "bundle": ("after", "from the bundle"),
    "baseline": ("baseline", "from its bundle"),
    "image": ("image", "restored"),
    "fork": ("host", "a fork"),
    "spare": ("host", "a spare"),
    "second": ("a process", "that has answered before"),
}
PLAIN = ("state", "init, first forward")  # a plain function does not say where its init ends
STATES: dict[Cache, str] = {"cold": "files read from disk", "warm": "files in memory"}


def bench_page(measured: Measured) -> str:
    """One HTML text. The same samples give the same text."""
    name = Path(measured.bundle.get("path", "")).name.removesuffix(".bundle") or "bench"
    window = max((sample.ttft_s for sample in measured.samples), default=1.0) * ROOM
    caches = [cache for cache in reversed(CACHES) if any(sample.cache == cache for sample in measured.samples)]
    said = [f"{_verdict(measured, cache)} {cache}" for cache in caches if speedup(measured.samples, cache)]
    body = "\n".join(
        (
            f'<header><p class="over">First token from fresh processes, before and after</p><h1>{safe(name)}</h1></header>',
            *(_section(measured, cache, window) for cache in caches),
            _doubts(measured),
            _facts(measured),
        )
    )
    return markup.document(f"{safe(name)}: the first token, {safe(', '.join(said))}", body)


def _verdict(measured: Measured, cache: Cache) -> str:
    ratio = speedup(measured.samples, cache)
    if ratio is None:
        return ""
    return f"{ratio:.1f} times sooner" if ratio >= 1 else f"{1 / ratio:.1f} times later"


def _section(measured: Measured, cache: Cache, window: float) -> str:
    groups = {variant: of(measured.samples, variant, cache) for variant in ROWS}
    lines, numbers = markup.axis(window)
    rows = "".join(_row(variant, samples, window) for variant, samples in groups.items() if samples)
    return f"""<section><h2 class="verdict">{safe(_verdict(measured, cache) or "nothing to compare with")}
<small>{STATES[cache]} ({cache} page cache)</small></h2>
<div class="chart"><div class="over-all">{lines}</div>{rows}
<div class="pair"><div></div>{numbers}</div></div>
{_proof(cache, [sample for samples in groups.values() for sample in samples])}
<div class="figures">{_pairs(groups, cache)}
{_phases(groups)}</div></section>"""


def _doubts(measured: Measured) -> str:
    found = markup.notes(notes(measured))
    return f"<section><h2>To be read with it</h2>{found}</section>" if found else ""


def _row(variant: Variant, samples: Sequence[Sample], window: float) -> str:
    """The run in the middle as a bar of its parts up to the first token; below it, all runs as dots."""
    median = spread([sample.ttft_s for sample in samples]).median
    lengths = middle_parts(samples)
    dots = "".join(_dot(number, sample, window) for number, sample in enumerate(samples, 1))
    name, how = NAMES[variant]
    at = percent(median, window)
    return f"""<div class="pair"><div class="who"><b>{name}</b> <span>{how}</span></div>
<div class="field">{markup.stacked(lengths, window)}<span class="end" style="left:{at}">{seconds_text(median)}</span>
<div class="dots" aria-hidden="true"><span class="median" style="left:{at}"></span>{dots}</div>
{markup.key(lengths)}</div></div>
"""


def _dot(number: int, sample: Sample, window: float) -> str:
    doubt = ' class="doubt"' if not sample.cache_proved or sample.output_equal is False else ""
    tip = f"run {number}: {seconds_text(sample.ttft_s)}{', the page cache was not known' * (not sample.cache_proved)}"
    return f'<i{doubt} style="left:{percent(sample.ttft_s, window)}" title="{tip}"></i>'


def sample_parts(sample: Sample) -> dict[Part, float]:
    """A run's phases up to its first token. The handler's goes on to its end; what no phase accounts for is tidalctl's."""
    plain = sample.variant == "eager"
    found: dict[Part, float] = {}
    for name, seconds in sample.phases.items():
        phase = phase_of(name)
        part = PLAIN if plain and name == "compute" else (phase.kind, phase.part)
        before = max(seconds - (sample.total_s - sample.ttft_s), 0.0) if name == "compute" else seconds
        found[part] = found.get(part, 0.0) + max(before, 0.0)
    rest = PLAIN if plain or sample.variant in HOSTED else OWN
    found[rest] = max(found.get(rest, 0.0) + sample.ttft_s - sum(found.values()), 0.0)
    return in_order({part: seconds for part, seconds in found.items() if seconds > 0})


def middle_parts(samples: Sequence[Sample]) -> dict[Part, float]:
    """The parts of the run in the middle, or the mean of the two there: they add up to the median first token."""
    ordered = sorted(samples, key=lambda sample: sample.ttft_s)
    middle = [sample_parts(sample) for sample in ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]]
    names = dict.fromkeys(part for found in middle for part in found)
    return in_order({part: sum(found.get(part, 0.0) for found in middle) / len(middle) for part in names})


def _proof(cache: Cache, samples: Sequence[Sample]) -> str:
    """How the state of the page cache is known."""
    proved = sum(sample.cache_proved for sample in samples)
    shares = [sample.resident_before for sample in samples if sample.resident_before is not None]
    if cache == "cold":
        how, seen = "evicted", f"at most {max(shares, default=0.0):.2%} of their bytes were in memory"
    else:
        how, seen = "read into memory", f"at least {min(shares, default=0.0):.2%} of the weights’ bytes were there"
    counted = seen if shares else "there was nothing to count"
    text = f"Before each run the files were {how} and their pages counted with mincore: {counted}."
    doubt = "" if proved == len(samples) else ' class="note"'
    return f"<p{doubt}>{text} Proved in {proved} of {len(samples)} runs.</p>"


def _pairs(groups: dict[Variant, list[Sample]], cache: Cache) -> str:
    """Each plain run beside the bundle's run of its round."""
    plain, bundle = (groups[variant] for variant in VARIANTS)
    rows = []
    for number in range(max(len(plain), len(bundle))):
        one, other = (group[number] if number < len(group) else None for group in (plain, bundle))
        cells = [figure(sample.ttft_s) if sample else "" for sample in (one, other)]
        ratio = f"{one.ttft_s / other.ttft_s:.2f}" if one and other else ""
        there = " / ".join(f"{s.resident_before:.1%}" for s in (one, other) if s and s.resident_before is not None)
        rows.append([str(number + 1), *cells, ratio, there, _equal([s for s in (one, other) if s])])
    head = ("round", "plain", "bundle", "ratio", "in memory before", "same output")
    return table(f"First token, {cache}, every round", head, rows)


def _equal(samples: Sequence[Sample]) -> str:
    if any(sample.output_equal is False for sample in samples):
        return "no"
    return "not compared" if any(sample.output_equal is None for sample in samples) else "yes"


def _phases(groups: dict[Variant, list[Sample]]) -> str:
    """Medians side by side: phases, and what a process takes besides."""
    phases = {variant: median_phases(samples) if samples else {} for variant, samples in groups.items()}
    names = dict.fromkeys(name for found in phases.values() for name in found)
    rows = [[swatch(name), *(_cell(phases[variant].get(name)) for variant in VARIANTS)] for name in names]
    for label, field in (
        ("first token", "ttft_s"),
        ("answer complete", "total_s"),
        ("process gone after it", "exit_s"),
        ("tidalctl’s own", "own_s"),
    ):
        rows.append([f"<b>{label}</b>", *(_median(groups[variant], field) for variant in VARIANTS)])
    return table("Medians", ("phase", "plain", "bundle"), rows)


def _cell(seconds: float | None) -> str:
    return "" if seconds is None else figure(seconds)


def _median(samples: Sequence[Sample], field: str) -> str:
    values = [value for sample in samples if (value := getattr(sample, field)) is not None]
    return figure(spread(values).median) if values else ""


def _facts(measured: Measured) -> str:
    strategies = dict.fromkeys(sample.strategy for sample in measured.samples if sample.variant == "bundle")
    found = [
        ("function", safe(measured.bundle.get("function", ""))),
        ("state made by", safe(", ".join(strategies))),
        ("digest", f"<code>{safe(measured.bundle.get('digest', ''))}</code>"),
        ("machine", safe(markup.machine_line(measured.machine))),
    ]
    return f"<section><h2>The bench</h2>{facts(found)}</section>"
