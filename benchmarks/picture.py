"""What does a start look like before and after? Draws the medians of a bench up to the first token, as SVG.

    tidalctl bench app.bundle --event event.json --cache both --json > bench.json
    python benchmarks/picture.py picture.svg bench.json [--cache warm|cold] [--name SmolLM2-135M]

Reads standard input where no JSON file is named. Takes the cold runs where there are any whose eviction was proved.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import msgspec

from tidalctl.bench.samples import CACHES, Cache, Sample, Variant, median_phases, of, speedup, spread

WIDTH, MARGIN, LABEL = 860, 28, 118
LEFT, RIGHT = MARGIN + LABEL, WIDTH - MARGIN
BAR, TOP = 46, 112
ROWS: tuple[tuple[Variant, str, str, int], ...] = (
    ("eager", "before", "plain Python", TOP),
    ("bundle", "after", "from the bundle", TOP + 116),
    ("image", "image", "restored", TOP + 232),  # where the bench has one
)
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"

# (class, label) by phase; what is listed under none of them is tidalctl's own
KINDS = {
    "process start": ("process", "Python starts"),
    "imports": ("imports", "imports"),
    "image": ("imports", "restored from image"),
    "init": ("state", "init"),
    "restore": ("state", "restore"),
    "compute": ("compute", "first forward"),
}
OWN = ("own", "tidalctl")
PLAIN_COMPUTE = ("state", "init, first forward")  # a plain function does not say where its init ends
ORDER = ("process", "own", "imports", "state", "compute")

STYLE = f"""
  text {{ font-family: {FONT}; fill: #1f2328; }}
  .title {{ font-size: 19px; font-weight: 600; }}
  .sub, .foot, .tick {{ fill: #59636e; }}
  .sub, .name2, .part {{ font-size: 13px; }}
  .foot, .tick {{ font-size: 12px; }}
  .name {{ font-size: 15px; font-weight: 600; }}
  .name2 {{ fill: #59636e; }}
  .end {{ font-size: 17px; font-weight: 600; }}
  .inside {{ fill: #ffffff; font-size: 13px; }}
  .strong {{ font-weight: 600; }}
  .grid {{ stroke: #d1d9e0; stroke-width: 1; }}
  .process {{ fill: #6e7781; }} .own {{ fill: #bc4c00; }} .imports {{ fill: #0969da; }} .state {{ fill: #8250df; }}
  .compute {{ fill: #1a7f37; }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #f0f6fc; }}
    .sub, .foot, .tick, .name2 {{ fill: #9198a1; }}
    .inside {{ fill: #ffffff; }}
    .grid {{ stroke: #3d444d; }}
    .process {{ fill: #6e7681; }} .own {{ fill: #db6d28; }} .imports {{ fill: #1f6feb; }} .state {{ fill: #8957e5; }}
    .compute {{ fill: #238636; }}
  }}
"""


class Segment(msgspec.Struct, frozen=True):
    """A part of a bar, in seconds from the spawn."""

    kind: str
    label: str
    begin: float
    seconds: float


def segments(samples: Sequence[Sample]) -> list[Segment]:
    """The median phases up to the median first token, in one row. Whatever no phase accounts for is tidalctl's."""
    ttft = spread([sample.ttft_s for sample in samples]).median
    phases = median_phases(samples)
    # the handler's phase goes on to its end; a start ends at the first token
    after = spread([sample.total_s - sample.ttft_s for sample in samples]).median
    phases["compute"] = max(phases.get("compute", 0.0) - after, 0.0)
    plain = samples[0].variant == "eager"
    lengths: dict[tuple[str, str], float] = {}
    for name, seconds in phases.items():
        part = PLAIN_COMPUTE if plain and name == "compute" else KINDS.get(name, OWN)
        lengths[part] = lengths.get(part, 0.0) + seconds
    rest = PLAIN_COMPUTE if plain else OWN
    lengths[rest] = max(lengths.get(rest, 0.0) + ttft - sum(lengths.values()), 0.0)
    found, begin = [], 0.0
    for (kind, label), seconds in sorted(lengths.items(), key=lambda item: ORDER.index(item[0][0])):
        found.append(Segment(kind, label, begin, seconds))
        begin += seconds
    return found


def shown(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s" if seconds >= 0.01 else f"{seconds:.3f} s"


def text_width(text: str, size: float) -> float:
    """About how wide a text is, in pixels; on the safe side of the fonts that a browser may pick."""
    return len(text) * size * 0.55


def draw(samples: Sequence[Sample], cache: Cache, name: str, footnote: str) -> str:
    rows = [row for row in ROWS if of(samples, row[0], cache)]
    starts = {variant: segments(of(samples, variant, cache)) for variant, *_ in rows}
    ttfts = {variant: spread([s.ttft_s for s in of(samples, variant, cache)]).median for variant, *_ in rows}
    step = tick_step(max(ttfts.values()))
    scale = (RIGHT - LEFT - 74) / max(ttfts.values())  # room for the time at the end of the longest bar
    axis = rows[-1][3] + BAR + 68
    height = axis + 66
    ratio = speedup(samples, cache) or 0.0
    state = "files read from disk (page cache evicted)" if cache == "cold" else "files in memory (warm page cache)"
    verdict = f"{ratio:.1f} times sooner" if ratio >= 1 else f"{1 / ratio:.1f} times later"
    if image := speedup(samples, cache, "image"):
        verdict += f", {image:.0f} times from its image"
    title = f"{name}: the first token, {verdict}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
        f"<title>{escape(title)}: {shown(ttfts['eager'])} before, {shown(ttfts['bundle'])} after</title>",
        f"<style>{STYLE}</style>",
        f'<text class="title" x="{MARGIN}" y="40">{escape(title)}</text>',
        f'<text class="sub" x="{MARGIN}" y="63">From the start of a fresh process, {state}</text>',
    ]
    ticks = int(max(ttfts.values()) / step + 0.001)
    for tick in range(ticks + 1):
        x = LEFT + tick * step * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP - 22}" x2="{x:.1f}" y2="{axis - 18}"/>')
        label = f"{tick * step:g}{' s' if tick == ticks else ''}"
        parts.append(f'<text class="tick" x="{x:.1f}" y="{axis}" text-anchor="middle">{label}</text>')
    for variant, when, how, y in rows:
        parts.append(f'<text class="name" x="{MARGIN}" y="{y + 20}">{when}</text>')
        parts.append(f'<text class="name2" x="{MARGIN}" y="{y + 38}">{how}</text>')
        parts.extend(bar(starts[variant], y, scale))
        end = LEFT + ttfts[variant] * scale + 10
        parts.append(f'<text class="end" x="{end:.1f}" y="{y + BAR / 2 + 6}">{shown(ttfts[variant])}</text>')
    parts.append(f'<text class="foot" x="{MARGIN}" y="{height - 20}">{escape(footnote)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def tick_step(longest: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that gives at most eight ticks."""
    size = 0.001
    while True:
        for factor in (1, 2, 5):
            if longest / (factor * size) <= 8:
                return factor * size
        size *= 10


def bar(found: Sequence[Segment], y: int, scale: float) -> Iterator[str]:
    """The segments in a row. A label stands inside where it fits, and below beside a patch of its colour where it doesn't."""
    below: list[Segment] = []
    for segment in found:
        x, width = LEFT + segment.begin * scale, segment.seconds * scale
        if width < 0.3:
            continue
        gap = 1.5 if width > 5 else 0.0  # the ground shows through between two segments
        yield f'<rect class="{segment.kind}" x="{x:.1f}" y="{y}" width="{max(width - gap, 0.8):.1f}" height="{BAR}" rx="2"/>'
        wide = max(text_width(segment.label, 13), text_width(shown(segment.seconds), 13)) + 14
        if width >= wide:
            yield f'<text class="inside" x="{x + 8:.1f}" y="{y + 20}">{escape(segment.label)}</text>'
            yield f'<text class="inside strong" x="{x + 8:.1f}" y="{y + 37}">{shown(segment.seconds)}</text>'
        else:
            below.append(segment)
    x, line = float(LEFT), y + BAR + 24
    for segment in below:
        label, seconds = segment.label, shown(segment.seconds)
        width = 17 + text_width(f"{label} {seconds}", 13)
        if x > LEFT and x + width > RIGHT:
            x, line = float(LEFT), line + 20
        yield f'<rect class="{segment.kind}" x="{x:.1f}" y="{line - 10}" width="11" height="11" rx="2"/>'
        yield (f'<text class="part" x="{x + 17:.1f}" y="{line}">{escape(label)} <tspan class="strong">{seconds}</tspan></text>')
        x += width + 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("svg", type=Path)
    parser.add_argument("bench", type=Path, nargs="?", help="the JSON of `tidalctl bench --json`; standard input without it")
    parser.add_argument("--cache", choices=CACHES)
    parser.add_argument("--name", help="what the title calls the function")
    options = parser.parse_args()
    found = json.loads(options.bench.read_text() if options.bench else sys.stdin.read())
    samples = msgspec.convert(found["samples"], list[Sample])
    drawable = [cache for cache in CACHES if speedup(samples, cache)]
    if not drawable or options.cache not in (None, *drawable):
        parser.error("the bench holds no runs of both variants for that state of the page cache")
    cold = "cold" in drawable and all(s.cache_proved for s in samples if s.cache == "cold")
    cache: Cache = options.cache or ("cold" if cold else drawable[0])
    runs, machine = len(of(samples, "bundle", cache)), found["machine"]
    footnote = " · ".join(
        (
            f"{cache} cache, medians of {runs}",
            f"{machine['cpu']}, {machine['cores']} cores",
            f"Python {machine['python']}, torch {machine['torch']}",
            str(machine["date"])[:10],
        )
    )
    name = options.name or Path(found["bundle"]["path"]).name.removesuffix(".bundle")
    options.svg.write_text(draw(samples, cache, name, footnote), encoding="utf-8")


if __name__ == "__main__":
    main()
