"""From spans to what is drawn: the innermost span at each moment, lanes, and small neighbours joined."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from tidalctl.report.phases import ORDER, OWN, phase_of
from tidalctl.report.records import MAIN, Span, Stall, Start

Part = tuple[str, str]  # kind and name


def main_pieces(start: Start) -> list[Span]:
    """The main thread without overlaps: at each moment the innermost span, and a stall wherever it stood still."""
    spans = [span for span in start.spans if span.lane == MAIN]
    spans += [Span("stall", stall.begin_s, stall.end_s) for stall in start.stalls]
    return list(innermost(spans))


def innermost(spans: Iterable[Span]) -> Iterator[Span]:
    """Pieces in order that do not overlap. Where spans lie inside one another, the inner one's time is its own."""
    open_spans: list[Span] = []
    at = float("-inf")

    def until(moment: float) -> Iterator[Span]:
        nonlocal at
        while open_spans and at < moment:
            top = open_spans[-1]
            end = min(top.end_s, moment)
            if end > max(at, top.begin_s):
                yield Span(top.name, max(at, top.begin_s), end, top.lane)
            at = max(at, end)
            if top.end_s <= moment:
                open_spans.pop()

    for span in sorted(spans, key=lambda span: (span.begin_s, -span.end_s)):
        yield from until(span.begin_s)
        open_spans.append(span)
        at = max(at, span.begin_s)
    yield from until(float("inf"))


def joined(pieces: Iterable[Span], least: float, keep: bool = False) -> list[Span]:
    """Neighbours of one name, at most `least` seconds apart, as one; what is shorter by itself is left out, or kept."""
    found: list[Span] = []
    for piece in pieces:
        last = found[-1] if found else None
        if last is not None and last.name == piece.name and piece.begin_s - last.end_s <= least:
            found[-1] = Span(last.name, last.begin_s, max(last.end_s, piece.end_s), last.lane)
        elif piece.end_s - piece.begin_s >= least or keep or piece.name == "stall":
            found.append(piece)
    return found


def lanes(start: Start) -> dict[str, list[list[Span]]]:
    """Every thread but the main one, with as many rows as it needs for nothing to overlap: reads, then checks, then copies."""
    threads: dict[str, list[Span]] = {}
    for span in sorted(start.spans, key=lambda span: (span.begin_s, -span.end_s)):
        if span.lane != MAIN:
            threads.setdefault(span.lane, []).append(span)
    rank = {name: ORDER.index(phase_of(spans[0].name).kind) for name, spans in threads.items()}
    return {
        name: rows(threads[name]) for name in sorted(threads, key=lambda name: (rank[name] < ORDER.index("read"), rank[name]))
    }


def rows(spans: Sequence[Span]) -> list[list[Span]]:
    """Spans, sorted by their beginning, each in the first row whose last one has ended."""
    found: list[list[Span]] = []
    for span in spans:
        for row in found:
            if row[-1].end_s <= span.begin_s:
                row.append(span)
                break
        else:
            found.append([span])
    return found


class Waits(msgspec.Struct, frozen=True):
    """Stalls that are drawn as one; the longest gives the name."""

    longest: Stall
    begin_s: float
    end_s: float
    seconds: float
    count: int


def waits(stalls: Iterable[Stall], apart: float) -> list[Waits]:
    """Stalls in order, those at most `apart` seconds from their neighbour in one."""
    groups: list[list[Stall]] = []
    for stall in sorted(stalls, key=lambda stall: (stall.begin_s, stall.end_s)):
        if groups and stall.begin_s - groups[-1][-1].end_s <= apart:
            groups[-1].append(stall)
        else:
            groups.append([stall])
    return [
        Waits(max(g, key=lambda s: s.seconds), g[0].begin_s, max(s.end_s for s in g), sum(s.seconds for s in g), len(g))
        for g in groups
    ]


def parts(pieces: Iterable[Span], end: float) -> dict[Part, float]:
    """Seconds by part up to a moment, in the order of the colours. Whatever no piece accounts for is tidalctl's own."""
    found: dict[Part, float] = {}
    for piece in pieces:
        phase, seconds = phase_of(piece.name), min(piece.end_s, end) - max(piece.begin_s, 0.0)
        if seconds > 0:
            found[phase.kind, phase.part] = found.get((phase.kind, phase.part), 0.0) + seconds
    if (rest := end - sum(found.values())) > 0:
        found[OWN] = found.get(OWN, 0.0) + rest
    return in_order(found)


def in_order(found: dict[Part, float]) -> dict[Part, float]:
    return dict(sorted(found.items(), key=lambda item: ORDER.index(item[0][0])))
