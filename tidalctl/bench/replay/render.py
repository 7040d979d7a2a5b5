"""A replay as a table for a person: a column for each way of serving, and below it what to read with the numbers."""

from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tidalctl.bench.replay.samples import ENOUGH, Replayed, Way, cold_share, percentile
from tidalctl.report.terminal import count_text, printable, seconds_text, size_text

LATE_S = 0.02  # the driver's lateness from which on a note says so


def render(replayed: Replayed, console: Console) -> None:
    for line in headlines(replayed):
        console.print(Text(line))
    table = Table(box=None, pad_edge=False)
    table.add_column()
    for way in replayed.ways:
        table.add_column(way.name, justify="right")
    for row in rows(replayed):
        table.add_row(*row)
    console.print(table)
    for note in notes(replayed):
        console.print(Text.assemble(("note: ", "yellow"), printable(note)))


def headlines(replayed: Replayed) -> Iterator[str]:
    """What was replayed, and how much of it found plain instances cold."""
    told = replayed.arrivals
    yield (
        f"{count_text(told['requests'], 'request')} for {told['functions_asked']} of {count_text(told['functions'], 'function')}, "
        f"{told['source']}, {told['seconds']:g} s at {told['speed']:g} times their speed: {told['offered_rate']:.3g} a second"
    )
    share = cold_share(replayed)
    if share is not None:
        yield f"plain starts cold for {share:.1%} of them, instances kept warm for {replayed.keep_warm_s:g} s of the arrivals' time"


def rows(replayed: Replayed) -> Iterator[tuple[str, ...]]:
    """The figures of all ways, each with its name before them."""
    ways = replayed.ways
    for kind in dict.fromkeys(kind for way in ways for kind in sorted(way.starts)):
        yield f"started {kind}", *(str(way.starts[kind]) if kind in way.starts else "" for way in ways)
    yield "failed", *(str(len(way.failed)) for way in ways)
    yield "outputs that differ", *(str(len(way.differing)) for way in ways)
    for share in ENOUGH:
        yield f"first token, p{share * 100:g}", *(seconds_text(percentile(way.ttfts, share)) for way in ways)
    yield "first token, max", *(seconds_text(max(way.ttfts, default=None)) for way in ways)
    yield f"within {replayed.slo_s:g} s", *(f"{way.within(replayed.slo_s):.1%}" for way in ways)
    yield "CPU time", *(seconds_text(way.serving.cpu_s) for way in ways)
    yield "CPU time before", *(seconds_text(way.opening.cpu_s) for way in ways)
    yield "cores busy", *(f"{way.serving.cpu_s / way.serving_s:.2f}" for way in ways)
    yield "read from disk", *(_size(way.serving.read_bytes) for way in ways)
    yield "peak memory", *(_size(way.peak_memory) for way in ways)
    yield "sent late, p50", *(seconds_text(percentile(_late(way), 0.5)) for way in ways)
    yield "sent late, max", *(seconds_text(_late(way)[-1]) for way in ways)


def _late(way: Way) -> list[float]:
    return sorted(sample.late_s for sample in way.samples)


def _size(nbytes: int | None) -> str:
    return "–" if nbytes is None else size_text(nbytes)


def notes(replayed: Replayed) -> Iterator[str]:
    """What a careful reader would ask about these numbers, answered before."""
    for way in replayed.ways:
        for why, count in Counter(sample.failed for sample in way.failed).most_common(3):
            yield f"{way.name}: failed {count} times: {why}"
        if way.differing:
            wrong = sorted({sample.mapping for sample in way.differing})
            yield f"{way.name}: outputs differ from the plain function's first one for map {', '.join(map(str, wrong))}"
        for cause, count in Counter(sample.cause for sample in way.samples if sample.cause).most_common():
            yield f"{way.name}: {cause} for {count_text(count, 'request')}"
        late = percentile(_late(way), 0.5) or 0.0
        if late > LATE_S:
            yield f"{way.name}: the driver sent half of the requests more than {seconds_text(late)} late; the machine is too busy"
        if len(way.ttfts) < ENOUGH[0.95]:
            yield f"{way.name}: {count_text(len(way.ttfts), 'answer')} are too few for a p95, which needs {ENOUGH[0.95]}"
    yield from replayed.remarks
