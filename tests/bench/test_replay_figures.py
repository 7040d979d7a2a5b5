"""The figures of a replay, its notes and its page, over samples made by hand."""

from typing import Any

from tidalctl.bench.replay.render import notes, rows
from tidalctl.bench.replay.report_page import replay_page
from tidalctl.bench.replay.resources import Usage
from tidalctl.bench.replay.samples import Replayed, Sample, Way, document, percentile


def sample(ttft_s: float | None = 1.0, **changed: Any) -> Sample:
    fields: dict[str, Any] = {
        "function": "f0",
        "mapping": 0,
        "due_s": 0.0,
        "late_s": 0.001,
        "start": "cold",
        "ttft_s": ttft_s,
        "total_s": ttft_s,
        "output_equal": True,
    }
    return Sample(**{**fields, **changed})


def replayed(*samples: Sample, **changed: Any) -> Replayed:
    fields: dict[str, Any] = {
        "name": "plain",
        "opening_s": 0.0,
        "opening": Usage(),
        "serving_s": 10.0,
        "serving": Usage(5.0, 1000),
        "peak_memory": 2000,
    }
    way = Way(samples=samples, **{**fields, **changed})
    told = {
        "source": "some",
        "functions": 1,
        "requests": len(samples),
        "seconds": 10.0,
        "speed": 1.0,
        "offered_rate": 1.0,
        "seed": 0,
    }
    told["functions_asked"] = 1
    mapped = {"mapping": 0, "bundle": "app.bundle", "digest": "d", "function": "app:handler", "functions": 1, "compared": True}
    return Replayed(machine={}, arrivals=told, maps=(mapped,), slo_s=2.0, keep_warm_s=600.0, memory=None, ways=(way,))


def test_a_percentile_is_a_measured_value_or_nothing() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert (
        percentile(values[:20], 0.95) == 19 and percentile(values[:19], 0.95) is None and percentile(values[:99], 0.99) is None
    )


def test_a_failure_is_none_of_the_times_and_misses_the_time_limit() -> None:
    made = replayed(*[sample(1.0)] * 20, *[sample(3.0)] * 4, sample(None, failed="it ended", output_equal=None))
    (way,) = document(made)["ways"]
    assert way["requests"] == 25 and way["failed"] == 1 and way["within_slo"] == 20 / 25 and way["ttft_s"]["p95"] == 3.0
    shown = dict(rows(made))
    assert shown["failed"] == "1" and shown["within 2 s"] == "80.0%" and shown["cores busy"] == "0.50"
    assert "plain: failed 1 times: it ended" in list(notes(made))


def test_a_busy_driver_and_a_memory_that_is_not_told_are_seen() -> None:
    made = replayed(*[sample(late_s=0.5)] * 20, peak_memory=None, serving=Usage(1.0, None))
    assert dict(rows(made))["peak memory"] == dict(rows(made))["read from disk"] == "–"
    assert any("more than 500 ms late" in note for note in notes(made))


def test_the_page_holds_every_sample_and_no_name_runs_as_markup() -> None:
    hostile = "<script>alert(1)</script>"
    made = replayed(
        sample(1.0, function=hostile), sample(2.5, output_equal=False), sample(None, failed=hostile, output_equal=None)
    )
    page = replay_page(made)
    assert page.count("<i style=") + page.count('<i class="doubt"') == 2
    assert hostile not in page and "&lt;script&gt;" in page and "2.50 s" in page
