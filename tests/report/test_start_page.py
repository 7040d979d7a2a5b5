"""`run --report` and `bench --report`: pages that hold the report's figures, need nothing else, and let no name run as markup."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bench_samples import sample
from conftest import Chain, forked, tidalctl

from tidalctl.bench.report_page import bench_page, middle_parts
from tidalctl.bench.samples import CACHES, VARIANTS, Measured
from tidalctl.report.phases import PHASES
from tidalctl.report.pieces import innermost, joined, lanes, parts, waits
from tidalctl.report.records import Mark, Span, Stall, Start
from tidalctl.report.start_page import LISTED, start_page, window_of
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.start_report import start_record

HOSTILE = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;\u202e\x00\udc80"
EMPTY = {"meta", "img", "br", "link", "input"}
EVENT = {"prompt": [3, 1, 4], "max_new_tokens": 5}
START = Start(
    bundle="app",
    digest="d" * 64,
    strategy="snapshot",
    fallback=None,
    verified=True,
    ttft_s=2.0,
    total_s=9.0,
    own_s=0.2,
    weights_bytes=5_000_000,
    read_bytes=1_000_000,
    misses=0,
    machine="a machine",
    phases={"process start": 0.1, "start": 0.2, "imports": 1.0, "compute": 7.5},
    spans=(
        Span("process start", 0.0, 0.1),
        Span("start", 0.1, 0.3),
        Span("imports", 0.3, 1.3),
        Span("compute", 1.4, 9.0),
        Span("read weights ahead", 0.2, 0.9, "reader: ahead"),
        Span("check weights", 0.3, 2.1, "reader: weights"),
    ),
    marks=(Mark("imported", 1.3), Mark("first token", 2.0)),
    stalls=(Stall("layers.0.weight", "layers.0", 1.5, 1.6), Stall("layers.1.weight", "layers.1", 1.8, 1.85)),
)


class Page(HTMLParser):
    """A page taken apart: every tag closed in its order, the rows of its tables, what bars say of themselves, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.values: list[list[float]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
            self.values.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "data":
            self.values[-1].append(float(dict(attrs)["value"] or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def of(self, tag: str, style: str = "") -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag and style in [*(found.get("class") or "").split(), ""]]

    def seconds(self, phase: str) -> list[float]:
        """The figures in the row of a phase."""
        label = PHASES[phase].label
        name = label if label == phase else f"{label} {phase}"
        return next(values for row, values in zip(self.rows, self.values, strict=True) if row and row[0] == name)


def needs_nothing(text: str) -> None:
    """No address, no file, and nothing that a browser would load."""
    assert not re.search(r"https?:|//[a-z]|\bsrc\s*=|\bhref\s*=|@import|url\(|fetch\(|XMLHttp|WebSocket", text)
    assert "default-src 'none'" in text
    assert not [tag for tag, _ in Page(text).tags if tag in ("link", "img", "iframe", "object", "embed", "form", "base", "svg")]


def test_a_real_start_gives_a_page_with_the_reports_figures(decoder: Chain, tmp_path: Path) -> None:
    page = tmp_path / "start.html"
    files = ("--report", page, "--timeline=start.json")
    report = tidalctl("run", decoder.bundle, "-e", json.dumps(EVENT), "--json", *files, cwd=tmp_path).report
    assert {path.name for path in tmp_path.iterdir()} == {"start.html", "start.json"}
    text = page.read_text(encoding="utf-8")
    found = Page(text)
    needs_nothing(text)
    for name, seconds in report["phases"].items():
        assert found.seconds(name) == [seconds], name
    assert report["digest"] in found.text
    assert "first token" in found.text and "reader: code" in found.text and "torch" in found.text
    assert str(decoder.folder) not in text and str(Path.home()) not in text
    assert "tidalctl.report" not in " ".join(report["unforeseen_modules"])


def test_a_missing_folder_is_refused_first_and_a_real_bench_gives_a_page_with_its_figures(
    decoder: Chain, tmp_path: Path
) -> None:
    line = ("bench", decoder.bundle, "--event", json.dumps(EVENT), "-n", "1")
    for verb in (line, ("run", *line[1:4])):
        forked(*verb, "--report", tmp_path / "none" / "b.html", cwd=tmp_path).one_error("--report", "no such folder")
    measured = json.loads(tidalctl(*line, "--json", "--report", tmp_path / "b.html", cwd=tmp_path).ok().out)
    found = Page((tmp_path / "b.html").read_text(encoding="utf-8"))
    needs_nothing((tmp_path / "b.html").read_text(encoding="utf-8"))
    plain, bundle = sorted(measured["samples"], key=lambda one: VARIANTS.index(one["variant"]))
    assert [plain["ttft_s"], bundle["ttft_s"]] in found.values
    for name, seconds in bundle["phases"].items():
        assert found.seconds(name)[-1] == seconds, name


def test_hostile_names_stay_text() -> None:
    spans = tuple(msgspec.structs.replace(span, lane=HOSTILE) if span.lane != "MainThread" else span for span in START.spans)
    names: dict[str, Any] = dict.fromkeys(("bundle", "digest", "strategy", "fallback", "machine"), HOSTILE)
    text = start_page(
        msgspec.structs.replace(
            START,
            **names,
            phases={HOSTILE: 1.0},
            spans=(*spans, Span(HOSTILE, 1.4, 1.5), Span(HOSTILE, 0.5, 0.6, "x")),
            marks=(Mark(HOSTILE, 1.0),),
            stalls=(Stall(HOSTILE, HOSTILE, 1.5, 1.6),),
        )
    )
    harmless(text)
    made = bench(strategy="eager", fallback=HOSTILE, phases={HOSTILE: 1.0})
    hostile = dict.fromkeys(("path", "digest", "function"), HOSTILE)
    harmless(bench_page(msgspec.structs.replace(made, bundle=hostile, machine={"cpu": HOSTILE}, remarks=(HOSTILE,))))


def harmless(text: str) -> None:
    found = Page(text)
    assert len(found.of("script")) == 1 and not found.of("img")
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in found.text  # as text
    text.encode("utf-8")
    assert not set(text) & {"\u202e", "\x00", "\udc80"}
    needs_nothing(re.sub(r"&lt;img src=x", "", text))


def test_a_stall_names_its_weight_in_the_picture_and_in_a_table() -> None:
    found = Page(start_page(START))
    assert [row[:2] for row in found.rows if row and row[0].startswith("layers.")] == [
        ["layers.0.weight", "layers.0"],
        ["layers.1.weight", "layers.1"],
    ]
    bars = [bar["title"] or "" for bar in found.of("i", "stall") if bar.get("title")]
    assert sum("stopped for layers.0.weight in layers.0: 100 ms" in bar for bar in bars) == 1
    assert len(found.of("span", "weight")) == 2
    assert "stalls" not in Page(start_page(msgspec.structs.replace(START, stalls=()))).text


def test_thousands_of_stalls_and_pieces_are_still_a_small_page() -> None:
    stalls = tuple(Stall(f"w{n}", "m", 1.4 + n * 1e-4, 1.4 + n * 1e-4 + (n % 7 + 1) * 1e-5) for n in range(5000))
    prints = tuple(Span("print", 2 + n * 1e-3, 2 + n * 1e-3 + 1e-6) for n in range(5000))
    text = start_page(msgspec.structs.replace(START, stalls=stalls, spans=(*START.spans, *prints)))
    assert len(text) < 1_000_000
    assert sum(row[0].startswith("w") and row[1] == "m" for row in Page(text).rows if len(row) == 4) == LISTED
    assert "5000 times" in text


def test_the_picture_ends_soon_after_the_first_token_and_says_that_the_answer_went_on() -> None:
    assert 2.1 < window_of(START) < 2.4  # after the last check, not after nine seconds
    assert "The answer went on until 9.00 s" in start_page(START)
    silent = msgspec.structs.replace(START, ttft_s=None, fallback="a lambda", verified=False)
    assert window_of(silent) == 9.0
    text = start_page(silent)
    assert "no first token" in text and "a lambda" in text and "not checked" in text
    Page(start_page(msgspec.structs.replace(START, ttft_s=0.0, total_s=0.0, phases={}, spans=(), marks=(), stalls=())))


def test_the_inner_span_has_the_time_and_parts_add_up_to_the_first_token() -> None:
    spans = [Span("compute", 1, 9), Span("init", 2, 5), Span("restore", 3, 4), Span("start", 0, 1)]
    cut = [(piece.name, piece.begin_s, piece.end_s) for piece in innermost(spans)]
    assert cut == [("start", 0, 1), ("compute", 1, 2), ("init", 2, 3), ("restore", 3, 4), ("init", 4, 5), ("compute", 5, 9)]
    found = parts(innermost(START.spans[:4]), 2.0)
    assert sum(found.values()) == pytest.approx(2.0)
    assert [kind for kind, _ in found] == ["process", "own", "imports", "compute"]
    assert found["own", "tidalctl"] == pytest.approx(0.3)  # with the moment that no span accounts for


def test_small_neighbours_are_joined_and_a_stall_is_never_lost() -> None:
    pieces = [Span("compute", 0, 1), Span("print", 1, 1.001), Span("compute", 1.001, 2), Span("stall", 2, 2.0001)]
    assert joined(pieces, 0.01) == [Span("compute", 0, 2), Span("stall", 2, 2.0001)]
    assert len(joined(pieces, 0.01, keep=True)) == 4
    groups = waits([Stall("a", "", 0, 1), Stall("b", "", 1.001, 3), Stall("c", "", 5, 6)], 0.01)
    assert [(group.longest.weight, group.count) for group in groups] == [("b", 2), ("c", 1)]


def test_what_overlaps_in_a_thread_has_rows_of_its_own() -> None:
    spans = (Span("copy", 0, 3, "copies"), Span("copy", 1, 2, "copies"), Span("copy", 3, 4, "copies"), *START.spans[4:])
    found = lanes(msgspec.structs.replace(START, spans=spans))
    assert list(found) == ["reader: ahead", "reader: weights", "copies"]
    assert [len(row) for row in found["copies"]] == [2, 1]


def test_a_timeline_keeps_stalls_and_hands_them_on() -> None:
    timeline = Timeline(1_000_000_000, 1_500_000_000)
    timeline.add_stall("w", "layers.0", 2_000_000_000, 2_250_000_000)
    timeline.marks |= {"done": 3_000_000_000}
    written = {name: getattr(START, name) for name in ("bundle", "digest", "strategy", "fallback", "verified", "ttft_s")}
    written |= {"io": "page cache", "weight_misses": 3}
    written |= {"total_s": 2.0, "own_s": 0.0, "weights_bytes": 0, "streamed_bytes": 0, "misses": 0, "phases": timeline.phases()}
    record = start_record(timeline, written, "a machine")
    assert record.stalls == (Stall("w", "layers.0", 1.0, 1.25),)
    assert record.spans == (Span("process start", 0.0, 0.5),)
    rows = Page(start_page(record)).text
    assert "read bypage cache" in rows and "weights not foreseen3" in rows
    events = json.loads(timeline.chrome_trace())["traceEvents"]
    assert [event["args"] for event in events if event.get("cat") == "stall"] == [{"weight": "w", "module": "layers.0"}]


def bench(**changes: Any) -> Measured:
    made = [
        sample(variant, (9.0 if variant == "eager" else 2.0) + turn / 10, cache, **changes)
        for cache in CACHES
        for turn in range(5)
        for variant in VARIANTS
    ]
    machine = {"cpu": "a cpu", "cores": 2, "python": "3.11", "torch": "2.13", "date": "2026-01-02T03:04:05+00:00"}
    return Measured(machine=machine, bundle={"path": "x/app.bundle", "function": "app:handler"}, samples=tuple(made))


def test_a_bench_page_holds_every_sample_the_ratio_and_how_the_cache_is_known() -> None:
    text = bench_page(bench())
    found = Page(text)
    needs_nothing(text)
    assert text == bench_page(bench())
    assert found.text.count("4.2 times sooner") == 4  # of each state of the cache, in the title and over its bars
    assert found.text.count("Proved in 10 of 10 runs") == 2
    dots = [bar for bar in found.of("i") if (bar.get("title") or "").startswith("run ")]
    assert len(dots) == 20
    assert [9.4, 2.4] in found.values
    assert "a cpu · 2 cores · Python 3.11 · torch 2.13 · 2026-01-02" in found.text
    found = Page(bench_page(bench(cache_proved=False, resident_before=0.4, output_equal=False)))
    assert found.text.count("Proved in 0 of 10 runs") == 2 and "outputs differ" in found.text
    assert len(found.of("i", "doubt")) == 20
    one = msgspec.structs.replace(bench(), samples=tuple(s for s in bench().samples if s.variant == "bundle"))
    assert "nothing to compare with" in Page(bench_page(one)).text
    Page(bench_page(msgspec.structs.replace(bench(), samples=())))
    runs = [sample("bundle", seconds) for seconds in (1.0, 2.0, 3.0, 9.0)]
    assert sum(middle_parts(runs).values()) == pytest.approx(2.5), "of an even number, too, the bar is as long as the median"
