"""`tidalctl replay --report`: a whole replay on one page. Every first token as a dot, the figures of all ways in a table."""

from tidalctl.bench.replay.render import headlines, notes, rows
from tidalctl.bench.replay.samples import Replayed, Sample, Way, percentile
from tidalctl.report import markup
from tidalctl.report.markup import facts, percent, safe, table
from tidalctl.report.terminal import seconds_text, size_text

ROOM = 1.2  # of the latest first token: its time stands beside it
HOW = {"plain": "a process an instance", "bundle": "the same, from bundles", "host": "forks of template processes"}


def replay_page(replayed: Replayed) -> str:
    """One HTML text. The same samples give the same text."""
    source = str(replayed.arrivals["source"])
    window = max((max(way.ttfts, default=0.0) for way in replayed.ways), default=0.0) * ROOM or 1.0
    lines, numbers = markup.axis(window)
    chart = "".join(_row(way, window) for way in replayed.ways)
    body = "\n".join(
        (
            f'<header><p class="over">First tokens, by how functions are served</p><h1>{safe(source)}</h1></header>',
            "".join(f"<p>{safe(line)}</p>" for line in headlines(replayed)),
            f'<section><div class="chart"><div class="over-all">{lines}</div>{chart}'
            f'<div class="pair"><div></div>{numbers}</div></div></section>',
            _figures(replayed),
            f"<section><h2>To be read with it</h2>{markup.notes(notes(replayed))}</section>",
            _facts(replayed),
        )
    )
    return markup.document(f"{safe(source)}: first tokens", body)


def _row(way: Way, window: float) -> str:
    """All first tokens of one way as dots, with a line at the median."""
    median = percentile(way.ttfts, 0.5)
    line = "" if median is None else f'<span class="median" style="left:{percent(median, window)}"></span>'
    dots = "".join(_dot(sample, window) for sample in way.samples if sample.ttft_s is not None)
    return (
        f'<div class="pair"><div class="who"><b>{way.name}</b> <span>{HOW[way.name]}</span></div>'
        f'<div class="field"><div class="dots" aria-hidden="true">{line}{dots}</div></div></div>\n'
    )


def _dot(sample: Sample, window: float) -> str:
    assert sample.ttft_s is not None
    doubt = ' class="doubt"' if sample.output_equal is False else ""
    tip = f"{sample.function}, due after {sample.due_s:.1f} s, {sample.start}: {seconds_text(sample.ttft_s)}"
    return f'<i{doubt} style="left:{percent(max(sample.ttft_s, 0.0), window)}" title="{safe(tip)}"></i>'


def _figures(replayed: Replayed) -> str:
    head = ("", *(way.name for way in replayed.ways))
    cells = [[safe(cell) for cell in row] for row in rows(replayed)]
    return f'<section class="figures">{table("The figures", head, cells)}</section>'


def _facts(replayed: Replayed) -> str:
    found = [
        (f"map {one['mapping']}", safe(f"{one['function']} for {one['functions']} functions, {one['bundle']}, {one['digest']}"))
        for one in replayed.maps
    ]
    if replayed.memory is not None:
        found.append(("memory, at most", size_text(replayed.memory)))
    found += [
        ("seed", safe(replayed.arrivals["seed"])),
        ("machine", safe(markup.machine_line(replayed.machine))),
    ]
    return f"<section><h2>The replay</h2>{facts(found)}</section>"
