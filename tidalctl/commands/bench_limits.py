"""The limits of `tidalctl bench`: read from its options, told to a build pipeline, and what it ends with where one is exceeded."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tidalctl.artifacts.cause import Cause
from tidalctl.artifacts.errors import CheckFailed, TidalError, TooFewSamples
from tidalctl.bench.budgets import Budgets, Finding, read_baseline
from tidalctl.bench.ci_report import annotations, write_summary
from tidalctl.bench.samples import Measured
from tidalctl.bench.subject import Subject, open_subject
from tidalctl.commands.duration import parse_duration
from tidalctl.commands.size import parse_size
from tidalctl.report.machine import describe_machine

ALLOWED = 0.1  # growth, where there is a baseline and nobody says how much
SAME = ("cpu", "vectors", "cores", "python", "torch", "kernel")  # of a machine, in which a baseline should be this one's


def read_budgets(
    baseline: Path | None, regression: str, ttft: str, size: str, rss: str, subject: Subject, argv: Sequence[str]
) -> tuple[Budgets, Subject | None]:
    """Return the limits that options name, and the earlier bundle, if the baseline is one. Raises TidalError."""
    if regression and baseline is None:
        raise TidalError(
            "--max-regression needs something to compare with", "give --baseline OLD.bundle, or the JSON of an earlier bench"
        )
    ratios: tuple[float, ...] = ()
    other = None
    if baseline is not None and baseline.is_dir():
        other = open_subject(baseline, argv, subject.plain.context)
    elif baseline is not None:
        ratios, machine = read_baseline(baseline)
        here = describe_machine(subject.manifest.fingerprint.torch)
        if differs := [name for name in SAME if machine.get(name) != here.get(name)]:
            print(f"note: the baseline was measured on another machine: {', '.join(differs)} differ", file=sys.stderr)
    budgets = Budgets(
        ttft_s=parse_duration("--max-ttft", ttft, "2.5s") if ttft else None,
        regression=_percent(regression) if regression else ALLOWED if baseline is not None else None,
        size=parse_size("--max-size", size) if size else None,
        rss=parse_size("--max-rss", rss) if rss else None,
        baseline=ratios,
    )
    return budgets, other


def has_usable_image(bundle: Path) -> bool:
    """Whether a start here can use the bundle's process image. Where there is one and it can't, a note says why."""
    from tidalctl.image.launcher import usable_here
    from tidalctl.image.manifest import NoImage, read_manifest

    try:
        reason = usable_here(bundle, read_manifest(bundle))
    except PermissionError:
        reason = Cause.IMAGE_NOT_READABLE.of()
    except NoImage as error:
        if error.found:
            print(f"note: the bundle's image is not measured: {error}", file=sys.stderr)
        return False
    if reason is not None:
        print(f"note: the bundle's image is not measured: {reason}", file=sys.stderr)
    return reason is None


def _percent(text: str) -> float:
    number = text.removesuffix("%")
    if not number.replace(".", "", 1).isdecimal():
        raise TidalError(f"--max-regression {text!r} is no percentage", "for example: --max-regression 10%")
    return float(number) / 100


def tell_pipeline(bundle: str, measured: Measured, findings: Sequence[Finding]) -> None:
    """Tell a build pipeline what there is, in the way in which it shows it."""
    for line in annotations(os.environ, bundle, findings):
        print(line, file=sys.stderr)
    write_summary(os.environ, measured, findings)


def refuse_exceeded(bundle: Path, findings: Sequence[Finding], *, passes: bool) -> None:
    """Raise CheckFailed where a limit is exceeded; TooFewSamples where one is left open, unless that `passes`."""
    exceeded = [finding for finding in findings if finding.verdict == "exceeded"]
    if exceeded:
        hint = f"where the time goes: tidalctl bench {bundle} --event … --report bench.html"
        raise CheckFailed(f"{bundle}: {exceeded[0].text} (--{exceeded[0].budget})", hint)
    left_open = [finding for finding in findings if finding.verdict == "inconclusive"]
    if left_open and not passes:
        hint = "measure on an idle machine, or with more rounds (-n), or let it pass: --inconclusive pass"
        raise TooFewSamples(f"{bundle}: not to be told: {left_open[0].text} (--{left_open[0].budget})", hint)
