"""`tidalctl replay`: what recorded arrivals of requests meet, by how their functions are served."""

from pathlib import Path
from typing import Annotated

import typer

from tidalctl.artifacts.errors import CheckFailed, TidalError, TooFewSamples
from tidalctl.commands.duration import parse_duration
from tidalctl.commands.progress import show_progress
from tidalctl.commands.size import parse_size


def replay(
    arrivals: Annotated[
        Path | None,
        typer.Argument(
            metavar="ARRIVALS", help="Recorded arrivals (CSV). Without, they are drawn: --rate and --seconds say how many."
        ),
    ] = None,
    maps: Annotated[
        list[str],
        typer.Option(
            "--map",
            metavar="FUNCTION=BUNDLE:EVENT",
            help="The bundle and event (JSON or a file) of a function, or of all (*) that no other map names, in turn. Repeatable.",
            show_default=False,
        ),
    ] = ...,  # type: ignore[assignment]
    functions: Annotated[
        int | None,
        typer.Option(min=1, help="How many functions requests are for, where the file names none. As many as maps by default."),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(metavar="R", help="Requests a second, of the arrivals' own time: a recording is thinned to them."),
    ] = None,
    seconds: Annotated[str | None, typer.Option(metavar="S", help="Only the first seconds of the arrivals' own time.")] = None,
    burst: Annotated[
        str | None,
        typer.Option(metavar="N", help="Requests that come together, in the mean, where they are drawn. 1 by default."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of whatever is drawn.")] = 0,
    speed: Annotated[str, typer.Option(metavar="X", help="How many times faster than recorded requests come.")] = "1",
    against: Annotated[str, typer.Option(help="The ways of serving, in order.")] = "plain,bundle,host",
    keep_warm: Annotated[
        str, typer.Option(help="How long plain and bundle keep an idle instance, in the arrivals' own time.")
    ] = "10m",
    slo: Annotated[str, typer.Option(help="The first token is to come within this time.")] = "2s",
    timeout: Annotated[str, typer.Option(help="A request that has no answer by then has failed.")] = "2m",
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="The memory that each way may hold: idle instances are ended before their time."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all samples as JSON instead of the table.")] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Write the replay as a page to look at (HTML).")] = None,
) -> None:
    """Replay arrivals of requests against ways of serving.

    Real processes answer, and requests are sent when they are due. plain and bundle start a process for each request that finds no
    idle one of its function, and keep it warm; host is tidalctl serve. Exit code 1 where an answer is missing or differs from the plain
    function's, 3 where there are too few for a p95.
    """
    from tidalctl.artifacts.bundle.output_paths import refuse_files
    from tidalctl.bench.replay.drawn import Choice, chosen_arrivals
    from tidalctl.bench.replay.mapping import open_functions, parse_mapping
    from tidalctl.bench.replay.replay import Settings
    from tidalctl.bench.replay.replay import replay as drive_all
    from tidalctl.bench.replay.samples import ENOUGH, document
    from tidalctl.bench.replay.serving import WAYS

    if report:
        refuse_files({"report": str(report)})
    known = {str(name): name for name in WAYS}
    if unknown := [name for name in against.split(",") if name not in known]:
        raise TidalError(f"--against {unknown[0]!r} is no way of serving", f"the ways are {','.join(WAYS)}")
    settings = Settings(
        ways=tuple(known[name] for name in dict.fromkeys(against.split(","))),
        speed=_number("--speed", speed),
        keep_warm_s=parse_duration("--keep-warm", keep_warm, "10m"),
        slo_s=parse_duration("--slo", slo, "2s"),
        timeout_s=parse_duration("--timeout", timeout, "2m"),
        memory=None if memory is None else parse_size("--memory", memory, "8GB"),
        seed=seed,
    )
    choice = Choice(
        path=arrivals,
        functions=functions,
        rate=None if rate is None else _number("--rate", rate),
        seconds=None if seconds is None else _number("--seconds", seconds),
        burst=None if burst is None else _number("--burst", burst, least=1),
        seed=seed,
    )
    mappings = [parse_mapping(text) for text in maps]
    trace = chosen_arrivals(choice, len(mappings))
    served = open_functions(trace.functions, mappings)
    try:
        replayed = drive_all(trace, served, settings, show_progress)
    finally:
        show_progress("")
    if json:
        from json import dumps

        print(dumps(document(replayed), indent=1, ensure_ascii=False), flush=True)
    else:
        from tidalctl.bench.replay.render import render
        from tidalctl.report.terminal import console

        render(replayed, console())
    if report:
        from tidalctl.bench.replay.report_page import replay_page

        report.write_text(replay_page(replayed), encoding="utf-8")
    if bad := {way.name: len(way.failed) + len(way.differing) for way in replayed.ways if way.failed or way.differing}:
        said = ", ".join(f"{count} of {name}" for name, count in bad.items())
        raise CheckFailed(
            f"answers are missing or differ from the plain function's: {said}", "the notes above say which, --json each"
        )
    if few := [way.name for way in replayed.ways if len(way.ttfts) < ENOUGH[0.95]]:
        raise TooFewSamples(f"too few answers for a p95: {', '.join(few)}", f"replay at least {ENOUGH[0.95]} requests")


def _number(option: str, text: str, least: float = 1e-6) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not least <= number < 1e9:
        raise TidalError(f"{option} {text!r} is no number from {least:g} on", f"for example: {option} 2")
    return number
