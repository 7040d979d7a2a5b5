"""`tidalctl bench`: how much sooner the first token comes from a bundle than from the plain function."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tidalctl.commands.context_option import CONTEXT
from tidalctl.commands.progress import show_progress
from tidalctl.runtime.options import Require


class Inconclusive(StrEnum):
    FAIL = "fail"
    PASS = "pass"


class CacheChoice(StrEnum):
    WARM = "warm"
    COLD = "cold"
    BOTH = "both"


def bench(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle, as compile wrote it.", show_default=False)],
    event: Annotated[
        list[str],
        typer.Option("--event", "-e", metavar="JSON|FILE|-", help="The event that every run answers.", show_default=False),
    ],
    rounds: Annotated[int, typer.Option("-n", "--rounds", min=1, help="Pairs of runs for each state of the page cache.")] = 5,
    cache: Annotated[
        CacheChoice, typer.Option("--cache", help="Whether files are in memory before a run (checked with mincore).")
    ] = CacheChoice.WARM,
    host: Annotated[
        bool, typer.Option("--host", help="Measure a host's answers besides: a fork, a spare, and a later call in one process.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print every sample as JSON instead of the table.")] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Write the bench as a page to look at (HTML).")] = None,
    require: Annotated[
        Require | None,
        typer.Option("--require", help="Fail unless the state is made from the bundle by this strategy."),
    ] = None,
    fields: Annotated[str | None, CONTEXT] = None,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", help="An earlier bundle, measured in turn with this one; or what bench --json said of one."),
    ] = None,
    max_regression: Annotated[
        str,
        typer.Option(
            "--max-regression", metavar="PERCENT", help="Fail where a start is so much slower than the baseline's: 10%."
        ),
    ] = "",
    max_ttft: Annotated[
        str, typer.Option("--max-ttft", metavar="TIME", help="Fail where the first output takes longer: 2.5s.")
    ] = "",
    max_size: Annotated[str, typer.Option("--max-size", help="Fail where the bundle is larger: 5GB.")] = "",
    max_rss: Annotated[str, typer.Option("--max-rss", help="Fail where a start has more memory at its peak: 5GB.")] = "",
    inconclusive: Annotated[
        Inconclusive,
        typer.Option("--inconclusive", help="What it means that a noisy machine leaves a limit open: exit code 3, or 0."),
    ] = Inconclusive.FAIL,
) -> None:
    """Measure the first output, plain and from the bundle.

    Fresh processes take turns. The page cache's state is proved for every run and the outputs are compared. Exit code 1 where they
    differ. The handler is called twice a round, once plainly and once from the bundle, and twice more to warm up; --host, --baseline
    and an image have it called more often. With limits (--max-…) the exit code is 1 where one is exceeded, and 3 where that can't be
    told after three times the rounds. Arguments after -- reach the function's sys.argv.
    """
    from tidalctl.artifacts.bundle.output_paths import refuse_files
    from tidalctl.artifacts.bundle.provenance import changed_files, names_text
    from tidalctl.artifacts.errors import CheckFailed, TidalError
    from tidalctl.bench.budgets import judge, wants_more
    from tidalctl.bench.samples import CACHES, document
    from tidalctl.bench.session import measure
    from tidalctl.bench.subject import open_subject
    from tidalctl.commands.bench_limits import has_usable_image, read_budgets, refuse_exceeded, tell_pipeline
    from tidalctl.commands.one_event import one_event
    from tidalctl.function.context import parse_context
    from tidalctl.function.event import parse_event

    if report:
        refuse_files({"report": str(report)})
    given = one_event(event)
    subject = open_subject(bundle, context.args, parse_context(fields) if fields is not None else "")
    request, _ = parse_event(given)
    if host and cache == CacheChoice.COLD:
        raise TidalError("--host is about files in memory", "leave out --cache cold, or measure --cache both")
    caches = [state for state in CACHES if cache in (state, CacheChoice.BOTH)]
    budgets, other = read_budgets(baseline, max_regression, max_ttft, max_size, max_rss, subject, context.args)
    size = sum(file.size for file in subject.manifest.files.values())
    more = lambda measured, done: wants_more(judge(measured, budgets, size), done, rounds)  # noqa: E731
    try:
        measured = measure(
            subject,
            request,
            rounds,
            caches,
            show_progress,
            require,
            host=host,
            image=has_usable_image(bundle),
            baseline=other,
            more=more,
        )
    finally:
        show_progress("")
    findings = judge(measured, budgets, size)
    if json:
        from json import dumps

        print(dumps(document(measured, findings), indent=1, ensure_ascii=False), flush=True)
    else:
        from rich.console import Console

        from tidalctl.bench.render import render

        render(measured, Console(highlight=False))
        for finding in findings:
            print(f"{finding.verdict}: {finding.text} (--{finding.budget})")
    tell_pipeline(str(bundle), measured, findings)
    if report:
        from tidalctl.bench.report_page import bench_page

        report.write_text(bench_page(measured), encoding="utf-8")
    if measured.differing:
        changed = changed_files(subject.manifest, Path(subject.plain.root))
        raise CheckFailed(
            f"outputs differ from the plain function's in {len(measured.differing)} of {len(measured.samples)} runs",
            f"{names_text(changed)} changed since the bundle was made: trace and compile it again"  # which verify would not run
            if changed
            else f"see where: tidalctl verify {bundle} --event …",
        )
    refuse_exceeded(bundle, findings, passes=inconclusive is Inconclusive.PASS)
