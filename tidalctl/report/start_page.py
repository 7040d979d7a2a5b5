"""The page about one start: where the time to the first token went, the waterfall, and the same figures in tables."""

from collections.abc import Iterator

from tidalctl.artifacts.cause import ordinary_way
from tidalctl.report import markup
from tidalctl.report.markup import facts, figure, notes, percent, safe, share, swatch, table, tiles
from tidalctl.report.phases import phase_of
from tidalctl.report.pieces import Part, Waits, joined, lanes, main_pieces, parts, waits
from tidalctl.report.records import MAIN, Span, Stall, Start
from tidalctl.report.terminal import seconds_text, size_text

FINEST = 2e-4  # of the picture's width: what is shorter is not drawn by itself
NAMED = 8  # stalls that stand in the picture with their weight's name
LISTED = 300  # and in the table
MADE_BY = {
    "snapshot": "restored from the snapshot",
    "script": "restored, and finished by the dynamic init",
    "replay": "made by init, its reads answered from the bundle",
    "eager": "made by init, the ordinary way",
}


def start_page(start: Start) -> str:
    """One HTML text. The same record gives the same text."""
    until = start.total_s if start.ttft_s is None else start.ttft_s
    lengths = parts(main_pieces(start), until)
    body = "\n".join(
        (
            f'<header><p class="over">A start from its bundle</p><h1>{safe(start.bundle)}</h1></header>',
            _numbers(start),
            notes(_notes(start)),
            _glance(start, lengths, until),
            _waterfall(start),
            *_tables(start),
            _facts(start),
        )
    )
    what = "first token after" if start.ttft_s is not None else "done after"
    return markup.document(f"{safe(start.bundle)}: {what} {seconds_text(until)}", body)


def _numbers(start: Start) -> str:
    stalled = sum(stall.seconds for stall in start.stalls)
    first = [] if start.ttft_s is None else [(seconds_text(start.ttft_s), "to the first token", "first")]
    return tiles(
        [
            *first,
            (seconds_text(start.total_s), "to the whole answer", ""),
            (seconds_text(start.own_s), "of it tidalctl’s own", ""),
            (
                seconds_text(stalled),
                f"stopped for weights, {len(start.stalls)} times" if stalled else "stopped for weights",
                "warn" * (stalled > 0),
            ),
            (size_text(start.read_bytes), f"read, of {size_text(start.weights_bytes)} of weights", "")
            if start.weights_bytes
            else ("0 B", "of the bundle’s weights used", ""),
        ]
    )


def _notes(start: Start) -> Iterator[str]:
    if start.fallback:
        yield ordinary_way(start.fallback)
    if not start.verified:
        yield "the bundle’s digests were not checked"
    if start.ttft_s is None:
        yield "the handler gave no output for this event, so there was no first token"


def _glance(start: Start, lengths: dict[Part, float], until: float) -> str:
    """One bar of all that came before the first token, and a sentence about the largest part of it."""
    (_, name), seconds = max(lengths.items(), key=lambda item: item[1], default=(("own", "tidalctl"), 0.0))
    title = "Where the time to the first token went" if start.ttft_s is not None else "Where the time went"
    much = "Most of it" if seconds > until / 2 else "The largest part of it"
    said = f"{much}: {safe(name)}, {seconds_text(seconds)} or {safe(share(seconds, until))}."
    return f"<section><h2>{title}</h2><p>{said}</p>{markup.stacked(lengths, until)}{markup.key(lengths)}</section>"


def window_of(start: Start) -> float:
    """Where the picture ends: after the first token and all that was still under way beside it, not after a long answer."""
    if start.ttft_s is None:
        return max(start.total_s, 1e-6)
    beside = [span.end_s for span in start.spans if span.lane != MAIN] + [stall.end_s for stall in start.stalls]
    return max(min(max([start.ttft_s, *beside]) * 1.06, start.total_s), start.ttft_s, 1e-6)


def _waterfall(start: Start) -> str:
    window = window_of(start)
    lines, numbers = markup.axis(window)
    least = window * FINEST
    main = _cut(joined(main_pieces(start), least), start.ttft_s)
    tracks = [_lane("main thread", [_bars(main, window, start.ttft_s)], "main")]
    groups = waits((stall for stall in start.stalls if stall.begin_s < window), window * 0.002)
    if groups:
        tracks.append(_lane("stalls", _stall_rows(groups, window), "stalls"))
    for name, found in lanes(start).items():
        tracks.append(_lane(safe(name), [_bars(joined(row, least, keep=True), window) for row in found], "beside"))
    said = f"Waterfall of the start, from 0 to {seconds_text(window)}; the tables below hold its figures."
    more = f"<p>The answer went on until {seconds_text(start.total_s)}.</p>" if start.total_s > window * 1.001 else ""
    return f"""<section><h2>The start, thread by thread</h2>
<div class="tools" hidden><button data-zoom="0.5" aria-label="zoom out">−</button><button data-zoom="2" aria-label="zoom in">+</button>
<button data-zoom="0">all</button><span class="hint">Ctrl and the wheel zoom; point at a bar for its times</span></div>
<div class="scroll" role="img" aria-label="{said}"><div class="falls" data-window="{window:.6g}">
<div class="over-all">{lines}{_lines(start, window)}</div>
{"".join(tracks)}
{_lane("", [numbers], "foot")}
</div></div>{more}</section>"""


def _lane(name: str, found: list[str], style: str) -> str:
    inner = "".join(f'<div class="row">{row}</div>' for row in found)
    return f'<div class="lane {style}"><div class="name"><span>{name}</span></div><div class="track">{inner}</div></div>\n'


def _lines(start: Start, window: float) -> str:
    """The first token and the other moments, from top to bottom."""
    found = [
        f'<span class="moment" style="left:{percent(mark.at_s, window)}" title="{safe(mark.name)}: {seconds_text(mark.at_s)}"></span>'
        for mark in start.marks
        if mark.name not in ("first token", "done", "entered") and 0 <= mark.at_s <= window
    ]
    if start.ttft_s is not None:
        side = " left" if start.ttft_s > window / 2 else ""
        text = f"<b>first token {seconds_text(start.ttft_s)}</b>"
        found.append(f'<span class="token{side}" style="left:{percent(start.ttft_s, window)}">{text}</span>')
    return "".join(found)


def _cut(spans: list[Span], at: float | None) -> list[Span]:
    """What goes on past the first token, in two."""
    found: list[Span] = []
    for span in spans:
        if at is not None and span.begin_s < at < span.end_s:
            found += [Span(span.name, span.begin_s, at, span.lane), Span(span.name, at, span.end_s, span.lane)]
        else:
            found.append(span)
    return found


def _bars(spans: list[Span], window: float, first: float | None = None) -> str:
    drawn = (span for span in spans if span.begin_s < window and span.end_s > 0)
    return "".join(_bar(span, window, first is not None and span.begin_s >= first) for span in drawn)


def _bar(span: Span, window: float, later: bool) -> str:
    begin, end = max(span.begin_s, 0.0), min(span.end_s, window)
    kind, _, label = phase_of(span.name)
    style = f"{kind}{' gap' * (end - begin > window * 0.006)}{' on' * (span.end_s > window)}{' later' * later}"
    times = f"{seconds_text(span.end_s - span.begin_s)}, from {seconds_text(begin)} to {seconds_text(span.end_s)}"
    text = label if span.lane == MAIN else span.name
    return (
        f'<i class="{style}" style="left:{percent(begin, window)};width:{percent(end - begin, window)}"'
        f' title="{safe(text)}: {times}"><b>{safe(text)} <em>{seconds_text(span.end_s - span.begin_s)}</em></b></i>'
    )


def _stall_rows(groups: list[Waits], window: float) -> list[str]:
    """The longest stalls in a row each with the weight's name beside it, in order; the others in one more row without."""
    longest = sorted(groups, key=lambda group: -group.seconds)[:NAMED]
    named = [group for group in groups if group in longest][:NAMED]
    rest = [group for group in groups if group not in named]
    found = []
    for group in named:
        side = " left" if group.begin_s + group.end_s > window else ""
        at = group.begin_s if side else min(group.end_s, window)
        more = f" and {group.count - 1} more" if group.count > 1 else ""
        text = f"<bdi>{safe(group.longest.weight)}</bdi>{more} <em>{seconds_text(group.seconds)}</em>"
        found.append(_wait(group, window) + f'<span class="weight{side}" style="--at:{percent(at, window)}">{text}</span>')
    return found + ["".join(_wait(group, window) for group in rest)] * bool(rest)


def _wait(group: Waits, window: float) -> str:
    stall = group.longest
    more = f" and {group.count - 1} more" if group.count > 1 else ""
    module = f" in {stall.module}" if stall.module else ""
    tip = f"stopped for {stall.weight}{more}{module}: {seconds_text(group.seconds)}, from {seconds_text(group.begin_s)}"
    width = percent(min(group.end_s, window) - group.begin_s, window)
    return f'<i class="stall" style="left:{percent(group.begin_s, window)};width:{width}" title="{safe(tip)}"></i>'


def _tables(start: Start) -> Iterator[str]:
    rows = [[swatch(name), figure(s), safe(share(s, start.total_s))] for name, s in start.phases.items()]
    yield '<section class="figures"><h2>The same in figures</h2>'
    yield table("The main thread, until the answer was complete", ("phase", "time", "share"), rows)
    if start.marks:
        yield table("Moments", ("moment", "after"), [[safe(m.name), figure(m.at_s)] for m in start.marks])
    beside = list(_beside_cells(start))
    if beside:
        yield table("Beside it", ("work", "thread", "times", "from", "until", "time"), beside, numbers=2)
    if start.stalls:
        yield table(
            _stalls_caption(start.stalls), ("weight", "module", "from", "time"), list(_stall_cells(start.stalls)), numbers=2
        )
    yield "</section>"


def _stalls_caption(stalls: tuple[Stall, ...]) -> str:
    left = f"; the {LISTED} longest" if len(stalls) > LISTED else ""
    seconds = seconds_text(sum(stall.seconds for stall in stalls))
    return f"Stopped for weights: {len(stalls)} times, {seconds} in all, part of the phases above{left}"


def _stall_cells(stalls: tuple[Stall, ...]) -> Iterator[list[str]]:
    longest = sorted(stalls, key=lambda stall: -stall.seconds)[:LISTED]
    for stall in sorted(longest, key=lambda stall: (stall.begin_s, stall.end_s)):
        yield [
            f"<bdi>{safe(stall.weight)}</bdi>",
            f"<bdi>{safe(stall.module)}</bdi>",
            figure(stall.begin_s),
            figure(stall.seconds),
        ]


def _beside_cells(start: Start) -> Iterator[list[str]]:
    groups: dict[tuple[str, str], list[Span]] = {}
    for span in start.spans:
        if span.lane != MAIN:
            groups.setdefault((span.name, span.lane), []).append(span)
    for (name, lane), spans in groups.items():
        seconds = sum(span.end_s - span.begin_s for span in spans)
        ends = figure(min(span.begin_s for span in spans)), figure(max(span.end_s for span in spans))
        yield [f'<i class="{phase_of(name).kind}"></i>{safe(name)}', safe(lane), str(len(spans)), *ends, figure(seconds)]


def _facts(start: Start) -> str:
    found = [
        ("state", safe(MADE_BY.get(start.strategy, start.strategy))),
        (
            "weights",
            f"{size_text(start.weights_bytes)}, {size_text(start.read_bytes)} of it not in memory before"
            if start.weights_bytes
            else "none from the bundle",
        ),
        *([("read by", safe(start.io))] if start.io else []),
        ("modules not foreseen", str(start.misses)),
        *([("weights not foreseen", str(start.weight_misses))] if start.weight_misses is not None else []),
        ("digest", f"<code>{safe(start.digest)}</code>"),
        ("machine", safe(start.machine)),
    ]
    return f"<section><h2>The run</h2>{facts(found)}</section>"
