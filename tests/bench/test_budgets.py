"""Limits of a bench: what is judged, how it is told to a build pipeline, and when further rounds are measured."""

import json
from pathlib import Path

import pytest
from bench_samples import sample

from tidalctl.artifacts.errors import CheckFailed, TidalError, TooFewSamples
from tidalctl.bench.budgets import Budgets, judge, read_baseline, wants_more
from tidalctl.bench.ci_report import annotations, write_summary
from tidalctl.bench.samples import Measured, document
from tidalctl.commands.bench_limits import refuse_exceeded


def measured(**times: list[float]) -> Measured:
    samples = [sample(variant, time, peak_bytes=10**9) for variant, found in times.items() for time in found]  # type: ignore[arg-type]
    return Measured(machine={"cpu": "x"}, bundle={"path": "app.bundle"}, samples=tuple(samples))


SLOW = measured(bundle=[2.0, 2.1, 2.0, 2.2, 2.1], baseline=[1.0, 1.1, 1.0, 1.0, 1.1], eager=[4.0] * 5)


def test_each_limit_is_judged() -> None:
    budgets = Budgets(ttft_s=3.0, regression=0.1, size=10**6, rss=10**10)
    found = {finding.budget: finding.verdict for finding in judge(SLOW, budgets, size=2 * 10**6)}
    assert found == {"max-ttft": "within", "max-regression": "exceeded", "max-size": "exceeded", "max-rss": "within"}
    assert judge(SLOW, Budgets(), size=1) == []


def test_a_json_baseline_compares_shares_of_the_plain_time(tmp_path: Path) -> None:
    old = measured(bundle=[1.0] * 5, eager=[4.0] * 5)
    (tmp_path / "old.json").write_text(json.dumps(document(old)))
    ratios, machine = read_baseline(tmp_path / "old.json")
    assert (ratios, machine) == ((0.25,) * 5, {"cpu": "x"})
    (finding,) = judge(SLOW, Budgets(regression=0.1, baseline=ratios), size=1)
    assert finding.verdict == "exceeded" and 2 < finding.estimate.middle < 2.2
    for text in ("", "[]", '{"samples": []}', '{"samples": [], "machine": {}}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(TidalError):
            read_baseline(tmp_path / "bad.json")


def test_further_rounds_are_measured_while_something_is_open() -> None:
    open_one = judge(measured(bundle=[0.9, 1.4, 0.8, 1.5]), Budgets(ttft_s=1.0), size=1)
    assert [finding.verdict for finding in open_one] == ["inconclusive"]
    assert (wants_more(open_one, 4, 4), wants_more(open_one, 9, 4), wants_more(open_one, 12, 4)) == (5, 3, 0)
    assert wants_more(judge(SLOW, Budgets(ttft_s=9.0), size=1), 5, 5) == 0


def test_exit_codes() -> None:
    path = Path("app.bundle")
    exceeded = judge(SLOW, Budgets(ttft_s=1.0), size=1)
    open_one = judge(measured(bundle=[0.9, 1.4]), Budgets(ttft_s=1.0), size=1)
    with pytest.raises(CheckFailed) as failed:
        refuse_exceeded(path, exceeded, passes=True)
    assert "--max-ttft" in failed.value.message
    with pytest.raises(TooFewSamples):
        refuse_exceeded(path, open_one, passes=False)
    refuse_exceeded(path, open_one, passes=True)
    refuse_exceeded(path, judge(SLOW, Budgets(ttft_s=9.0), size=1), passes=False)


def test_github_is_told_in_its_own_way(tmp_path: Path) -> None:
    findings = judge(SLOW, Budgets(ttft_s=1.0, size=10), size=1)
    assert list(annotations({}, "app.bundle", findings)) == []
    (line,) = annotations({"GITHUB_ACTIONS": "true"}, "app.bundle", findings)
    assert line.startswith("::error title=tidalctl max-ttft::app.bundle: first output from the bundle after ") and "%25" in line
    summary = tmp_path / "summary.md"
    write_summary({"GITHUB_STEP_SUMMARY": str(summary)}, SLOW, findings)
    text = summary.read_text()
    assert "| bundle | yes | " in text and "| `--max-ttft` | exceeded |" in text and "| `--max-size` | ok |" in text
    write_summary({}, SLOW, findings)
    assert list(tmp_path.iterdir()) == [summary]
