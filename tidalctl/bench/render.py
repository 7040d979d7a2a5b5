"""A bench as a table for a person, with what the numbers can't say by themselves below it, and the verdict last."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tidalctl.artifacts.cause import ordinary_way
from tidalctl.bench.samples import (
    CACHES,
    HOSTED,
    IMAGE,
    ROWS,
    Cache,
    Measured,
    Sample,
    Spread,
    Variant,
    against_second,
    median_phases,
    of,
    speedup,
    spread,
)
from tidalctl.report.terminal import seconds_text

EXIT = "exit: from the last output until the process is gone"
FEW = 3
LABELS: dict[Variant, str] = {"second": "later call"}
SHOWN = 0.0005  # a phase that rounds to nothing is left out


def render(measured: Measured, console: Console) -> None:
    groups = [(cache, variant, of(measured.samples, variant, cache)) for cache in CACHES for variant in ROWS]
    rows = [(cache, variant, samples) for cache, variant, samples in groups if samples]
    console.print(_table(rows))
    for cache, variant, samples in rows:
        if variant in HOSTED:
            continue
        phases = ", ".join(f"{name} {seconds:.3f}" for name, seconds in median_phases(samples).items() if seconds >= SHOWN)
        console.print(Text.assemble((f"{cache} {variant}: ", "bold"), phases))
    for note in notes(measured):
        console.print(Text.assemble(("note: ", "yellow"), note))
    for line in verdicts(measured):
        console.print(Text(line, style="bold"))


def _table(rows: list[tuple[Cache, Variant, list[Sample]]]) -> Table:
    """A column for each kind of run; its head is wrapped where the terminal is narrow."""
    table = Table(box=None, pad_edge=False, caption=f"medians, in seconds; {EXIT}", caption_justify="left")
    table.add_column()
    for cache, variant, samples in rows:
        table.add_column(f"{_state(cache, samples)} {LABELS.get(variant, variant)}", justify="right")
    first = [spread([sample.ttft_s for sample in samples]) for _, _, samples in rows]
    table.add_row("first token", *(f"{ttft.median:.3f}" for ttft in first))
    table.add_row("least", *(f"{ttft.least:.3f}" for ttft in first))
    table.add_row("most", *(f"{ttft.most:.3f}" for ttft in first))
    for name, field in (("total", "total_s"), ("exit", "exit_s"), ("tidalctl's own", "own_s")):
        found: list[list[Any]] = [
            [None if variant in HOSTED and field == "exit_s" else getattr(sample, field) for sample in samples]
            for _, variant, samples in rows
        ]
        table.add_row(name, *("" if None in values else f"{spread(values).median:.3f}" for values in found))
    return table


def _state(cache: Cache, samples: list[Sample]) -> str:
    return cache if all(sample.cache_proved for sample in samples) else f"{cache}?"


def notes(measured: Measured) -> Iterator[str]:
    """What a careful reader would ask about these numbers, answered before."""
    for cache in CACHES:
        for variant in ROWS:
            samples = of(measured.samples, variant, cache)
            if samples:
                yield from _doubts(cache, variant, samples)
    yield from measured.remarks
    if measured.differing:
        who = sorted({f"{sample.cache} {sample.variant}" for sample in measured.differing})
        yield f"outputs differ from the first plain run's: {', '.join(who)}"


def _doubts(cache: Cache, variant: Variant, samples: list[Sample]) -> Iterator[str]:
    who = f"{cache} {LABELS.get(variant, variant)}"
    ttft = spread([sample.ttft_s for sample in samples])
    unproved = [sample for sample in samples if not sample.cache_proved]
    if unproved:
        shares = [sample.resident_before for sample in unproved if sample.resident_before is not None]
        seen = (
            f"up to {max(shares):.0%}"
            if cache == "cold" and shares
            else f"only {min(shares):.0%}"
            if shares
            else "nothing to count"
        )
        verb = "eviction failed" if cache == "cold" else "not proved"
        runs = f"{len(unproved)} of {len(samples)} runs"
        yield f"{who}?: the page cache was not known to be {cache} ({verb} in {runs}: {seen} in memory)"
    if ttft.count < FEW:
        yield f"{who}: the number of runs is {ttft.count}, too few to see a spread; try -n 5"
    elif ttft.wide:
        yield f"{who}: first tokens came within {_range(ttft)}; try -n {max(10, 2 * ttft.count)} on an idle machine"
    for cause in dict.fromkeys(
        s.fallback or "no cause is told" for s in samples if variant == "bundle" and s.strategy == "eager"
    ):
        yield f"{who}: {ordinary_way(cause)}"


def _range(ttft: Spread) -> str:
    return f"{ttft.least:.2f} to {ttft.most:.2f} s, a spread of {(ttft.most - ttft.least) / ttft.median:.0%}"


def verdicts(measured: Measured) -> Iterator[str]:
    """One line for each state of the cache: how many times sooner."""
    hosted = [(variant, ratio) for variant in HOSTED[:2] if (ratio := against_second(measured.samples, variant))]
    if hosted:
        times = {variant: spread([s.ttft_s for s in of(measured.samples, variant, "warm")]).median for variant in HOSTED}
        told = ", ".join(
            f"{seconds_text(times[variant])} from a {variant} ({ratio:.2f} times that)" for variant, ratio in hosted
        )
        yield f"host: a later call in one process gives its first token after {seconds_text(times['second'])}; {told}"
    for cache in CACHES:
        for variant, whose in (("bundle", cache), (IMAGE, f"{cache}, from the image")):
            ratio = speedup(measured.samples, cache, variant)
            if ratio is None:
                continue
            eager = spread([s.ttft_s for s in of(measured.samples, "eager", cache)])
            ours = spread([s.ttft_s for s in of(measured.samples, variant, cache)])
            how = f"{ratio:.1f} times sooner" if ratio >= 1 else f"{1 / ratio:.1f} times later"
            of_n = f"medians of {ours.count}" if ours.count > 1 else "one run each"
            yield f"{whose}: first token {how} ({seconds_text(eager.median)} → {seconds_text(ours.median)}, {of_n})"
