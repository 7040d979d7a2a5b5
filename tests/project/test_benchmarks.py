"""What the benchmark scripts make of their numbers, and how they turn: no processes."""

import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture(params=["measure", "load", "ttft", "imports", "prewarm", "order", "resident", "gpu"])
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return imported(request.param, monkeypatch)


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return imported("measure", monkeypatch)


def imported(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    for each in ("measure", name):  # and gone again when the test is over
        monkeypatch.setitem(sys.modules, each, None)
        del sys.modules[each]
    return importlib.import_module(name)


def sample(row: str, turn: int, seconds: float, **changes: Any) -> dict[str, Any]:
    return {"row": row, "turn": turn, "cache": "warm", "cache_proved": True, "s": seconds, **changes}


def test_no_script_imports_torch_in_its_own_process(script: ModuleType) -> None:
    assert "torch" not in vars(script)


def test_the_order_of_rows_turns_around(measure: ModuleType) -> None:
    assert list(measure.turns(["a", "b"], 2, ["warm"])) == [
        ("warm", 0, "a"),
        ("warm", 0, "b"),
        ("warm", 1, "b"),
        ("warm", 1, "a"),
    ]


def test_a_ratio_is_the_median_of_the_turns_own_ratios(measure: ModuleType) -> None:
    samples = [sample("a", turn, s) for turn, s in enumerate((2.0, 30.0, 4.0))]
    samples += [sample("b", turn, s) for turn, s in enumerate((1.0, 10.0, 4.0))]
    assert measure.ratio(samples, "a", "b", "warm", "s") == {"median": 2.0, "pairs": [2.0, 3.0, 1.0]}
    assert measure.ratio(samples, "a", "b", "cold", "s") is None
    assert measure.ratio(samples[:4], "a", "b", "warm", "s")["pairs"] == [2.0]


def test_a_name_stands_for_all_rows_that_it_begins(measure: ModuleType) -> None:
    rows = ["llama.bundle", "llama.plain", "smollm2.bundle"]
    assert measure.chosen(rows, None) == rows
    assert measure.chosen(rows, ["smollm2", "llama.plain"]) == ["llama.plain", "smollm2.bundle"]
    with pytest.raises(SystemExit, match="there is no row onnx\nhint: rows are llama"):
        measure.chosen(rows, ["onnx"])


def test_seconds_have_three_digits_that_matter(measure: ModuleType) -> None:
    assert measure.cell(()) == ""
    assert measure.cell((23.31, 21.4, 24.2)) == "23.3 s (21.4–24.2)"
    assert measure.cell((3.761, 3.04, 4.2)) == "3.76 s (3.04–4.20)"
    assert [measure.cell((s,)).partition(" (")[0] for s in (0.0171, 120.4, 0.0)] == ["0.017 s", "120 s", "0.00 s"]


def test_what_weakens_the_numbers_is_noted(measure: ModuleType) -> None:
    samples = [sample("a", 0, 1.0, cache_proved=False), sample("b", 0, 1.0, output_equal=False), sample("b", 1, 1.0)]
    assert list(measure.notes(samples)) == [
        "note: the page cache was not proved to be warm in 1 of 3 runs",
        "note: other outputs in 1 runs: b",
    ]


def test_files_that_this_interpreter_is_mapped_from_are_left_out(measure: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "app.py"
    source.write_text("x = 1\n")
    library = Path(sys.modules["msgspec._core"].__file__ or "")
    assert measure.on_disk(iter([source, library, Path("/proc/self/maps")])) == [source]


def test_a_state_may_hold_more_than_the_checkpoint_but_no_less(monkeypatch: pytest.MonkeyPatch) -> None:
    load = imported("load", monkeypatch)
    assert load.holds([[4, 7], [4, 7], [8, 1]], [[4, 7], [4, 7]])
    assert not load.holds([[4, 7], [8, 1]], [[4, 7], [4, 7]])


def test_on_a_gpu_what_was_measured_before_the_time_was_up_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = imported("gpu", monkeypatch)

    def stuck(*given: Any) -> Iterator[dict[str, Any]]:
        yield {**sample("bundle", 0, 0.0), "ttft_s": 1.5, "output_equal": True}
        yield {**sample("to", 0, 0.0), "failed": "no room"}
        time.sleep(60)

    def child(program: str, *given: str) -> Any:
        if program == gpu.HOST:
            raise gpu.Failed("no such kernel")
        return gpu.measure.Child(0, {"name": "a GPU", "free_bytes": 0})

    monkeypatch.setattr(gpu.measure, "run", child)
    monkeypatch.setattr(gpu, "correct", lambda: {"result": "9 passed"})
    monkeypatch.setattr(gpu, "shape_for", lambda *given: "tiny")
    monkeypatch.setattr(gpu, "made", lambda *given: (tmp_path, tmp_path))
    monkeypatch.setattr(gpu, "processes", stuck)
    output = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--minutes", "0.02", "--work", str(tmp_path), "--output", str(output)])
    assert gpu.main() == 1
    written = json.loads(output.read_text())
    assert [one["row"] for one in written["samples"]] == ["bundle", "to"]
    assert [failure.partition(" after")[0] for failure in written["failures"]] == [
        "the warm process failed: no such kernel",
        "cut short",
    ]
    told = capsys.readouterr()
    assert "| tidalctl, from the bundle | 1.50 s" in told.out and "error: cut short" in told.err
