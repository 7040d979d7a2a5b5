"""What `tidalctl bench` says of samples it has: speedups and what weakens them, the table, and the picture drawn from its JSON."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench_samples import measured, sample
from rich.console import Console

from tidalctl.bench import render, samples

ROOT = Path(__file__).parents[2]


def test_the_speedup_is_the_ratio_of_the_medians() -> None:
    eager = [sample("eager", t) for t in (9.0, 10.0, 100.0)]
    bundle = [sample("bundle", t) for t in (1.0, 2.0, 2.5)]
    assert samples.speedup([*eager, *bundle], "warm") == 5.0
    assert samples.speedup([*eager, *bundle], "cold") is None
    assert list(render.verdicts(measured(*eager, *bundle))) == [
        "warm: first token 5.0 times sooner (10.0 s → 2.00 s, medians of 3)"
    ]


def test_a_slower_bundle_is_called_later() -> None:
    made = measured(sample("eager", 1.0), sample("bundle", 2.0))
    assert list(render.verdicts(made)) == ["warm: first token 2.0 times later (1.00 s → 2.00 s, one run each)"]


@pytest.mark.parametrize(
    ("doubtful", "said"),
    [
        ([sample("bundle", t) for t in (1.0, 1.0, 2.0)], "try -n 10"),
        ([sample("bundle", 1.0)] * 2, "too few"),
        ([sample("bundle", 1.0, strategy="eager", fallback="a lambda")] * 3, "init ran the ordinary way: a lambda"),
        (
            [sample("bundle", 1.0, "cold", cache_proved=False, resident_before=0.4)] * 3,
            "eviction failed in 3 of 3 runs: up to 40%",
        ),
    ],
)
def test_what_weakens_a_number_is_said_beside_it(doubtful: list[samples.Sample], said: str) -> None:
    assert said in " ".join(render.notes(measured(*doubtful)))


def test_a_steady_bench_has_nothing_to_note() -> None:
    made = [sample(variant, 1.0) for variant in samples.VARIANTS for _ in range(5)]
    assert list(render.notes(measured(*made))) == []


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_table_fits_the_terminal_and_ends_with_the_verdict(width: int) -> None:
    stream = io.StringIO()
    made = [sample(v, 17.9 if v == "eager" else 2.9, c) for v in samples.VARIANTS for c in samples.CACHES for _ in range(3)]
    render.render(measured(*made), Console(file=stream, width=width, highlight=False))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    assert "exit: from the last output until the process is gone" in flat
    assert flat.endswith("cold: first token 6.2 times sooner (17.9 s → 2.90 s, medians of 3)")
    assert "17.900" in flat and "2.900" in flat and "0.050" in flat


def test_the_picture_is_drawn_from_the_json(tmp_path: Path) -> None:
    import xml.etree.ElementTree as ElementTree

    machine = {"cpu": "a <cpu>", "cores": 2, "python": "3.11", "torch": "2.13", "date": "2026-01-02T03:04:05+00:00"}
    made = [sample(v, 17.9 if v == "eager" else 2.9) for v in samples.VARIANTS for _ in range(3)]
    result = samples.Measured(machine=machine, bundle={"path": "x/app.bundle", "function": "app:handler"}, samples=tuple(made))
    drawn = tmp_path / "picture.svg"
    subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "picture.py", drawn],
        input=json.dumps(samples.document(result)),
        text=True,
        check=True,
    )
    text = " ".join(ElementTree.parse(drawn).getroot().itertext())
    assert "17.9 s" in text and "2.9 s" in text and "6.2 times sooner" in text and "medians of 3" in text and "a <cpu>" in text
    assert "prefers-color-scheme" in drawn.read_text()
