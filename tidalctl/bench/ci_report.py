"""A bench with limits in a build pipeline: annotations and a summary for GitHub, which tells by its environment that it is there."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tidalctl.bench.budgets import Finding
from tidalctl.bench.samples import ROWS, Measured, of, spread
from tidalctl.report.terminal import seconds_text

MARKS = {"within": "ok", "exceeded": "exceeded", "inconclusive": "inconclusive"}
LEVELS = {"exceeded": "error", "inconclusive": "warning"}


def annotations(environ: Mapping[str, str], bundle: str, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the workflow commands by which GitHub Actions shows what is not kept; none anywhere else."""
    if environ.get("GITHUB_ACTIONS") == "true":
        for finding in findings:
            if finding.verdict in LEVELS:
                text = f"{bundle}: {finding.text}".replace("%", "%25").replace("\n", "%0A")
                yield f"::{LEVELS[finding.verdict]} title=tidalctl {finding.budget}::{text}"


def write_summary(environ: Mapping[str, str], measured: Measured, findings: Sequence[Finding]) -> None:
    """Add tables to the summary of a job of GitHub Actions, where there is one."""
    if path := environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write("\n".join(summary_lines(measured, findings)) + "\n")


def summary_lines(measured: Measured, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield Markdown: the medians, and each limit with its verdict."""
    yield f"### `{measured.bundle.get('path', '')}`: the first output"
    yield ""
    yield "| start | files in memory | median | least | most | runs |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for variant in ROWS:
        for cache in ("warm", "cold"):
            if samples := of(measured.samples, variant, cache):  # type: ignore[arg-type]
                times = spread([sample.ttft_s for sample in samples])
                middle, least, most = map(seconds_text, (times.median, times.least, times.most))
                yield f"| {variant} | {'yes' if cache == 'warm' else 'no'} | {middle} | {least} | {most} | {times.count} |"
    if findings:
        yield ""
        yield "| limit | verdict | |"
        yield "| --- | --- | --- |"
        for finding in findings:
            yield f"| `--{finding.budget}` | {MARKS[finding.verdict]} | {finding.text} |"
