"""`tidalctl verify`: check a bundle against its manifest and, with `--event`, against the plain function."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.artifacts.bundle.provenance import changed_files, names_text, project_of, read_provenance
from tidalctl.artifacts.bundle.verification import UNLISTED, Checked, check_bundle
from tidalctl.artifacts.errors import COMPILE_AGAIN, CheckFailed, TidalError
from tidalctl.function.event import parse_event
from tidalctl.function.output_comparison import first_difference, same_output
from tidalctl.report.terminal import count_text, printable, progress, seconds_text, size_text

SCHEMA = 1
MAX_SHOWN = 500  # characters of a message from a run that failed


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle, as compile wrote it.")],
    event: Annotated[
        list[str] | None,
        typer.Option("--event", "-e", metavar="JSON|FILE|-", help="Compare a run of it with the plain function. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON document.")] = False,
) -> None:
    """Check a bundle's files and, with --event, its answers.

    Files are held against the manifest, answers against the plain function's. Exit code 1: something differs.
    """
    texts = [parse_event(given)[1] for given in event or ()]  # before the files are read, which can take a while
    with progress("checking", sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())) as advance:
        checked = check_bundle(bundle, advance)
    runs: list[dict[str, Any]] = []
    gone, changed = None, list[str]()
    if checked.manifest is not None and not checked.differences:
        gone, changed = _project(bundle, checked.manifest)
        runs = [_unless_gone(compare_event(bundle, checked.manifest, text), gone) for text in texts]
    missed = gone if any(run["what"] and run["equal"] is None for run in runs) else None
    parted = [{"where": f"event {index}", "what": run["what"]} for index, run in enumerate(runs) if run["equal"] is False]
    differences = [*checked.differences, *parted]
    if as_json:
        document = {
            "schema": SCHEMA,
            "bundle": str(bundle),
            "digest": checked.manifest.digest if checked.manifest else None,
            "ok": not differences and missed is None,
            "checks": checked.checks,
            "changed": changed,
            "events": runs,
            "differences": differences,
        }
        print(msgspec.json.format(msgspec.json.encode(document), indent=1).decode())
    else:
        _show(checked, runs, differences, len(texts))
        if changed:
            what = "compared with the code as it was compiled" if texts else "the bundle runs the code as it was compiled"
            print(f"{'note':<8}{printable(names_text(changed))} changed in the project: {what}")
    if differences:
        raise CheckFailed(
            _verdict(bundle, runs, differences),
            _files_hint(bundle, checked.differences) if checked.differences else _hint(runs),
        )
    if missed:
        raise missed


def _project(bundle: Path, manifest: Manifest) -> tuple[TidalError | None, list[str]]:
    """Why there is no project to compare with, or which of its files are no longer what the bundle holds and runs."""
    try:
        return None, changed_files(manifest, project_of(read_provenance(bundle), manifest))
    except TidalError as error:
        return error, []


def _unless_gone(run: dict[str, Any], gone: TidalError | None) -> dict[str, Any]:
    """A plain run that fails where its project is gone says nothing about the bundle."""
    if gone is None or not run["runs"] or run["runs"]["bundle"]["error"] or not run["runs"]["eager"]["error"]:
        return run
    return {**run, "equal": None, "what": gone.message}


def _verdict(bundle: Path, runs: list[dict[str, Any]], differences: list[dict[str, str]]) -> str:
    alike = [run for run in runs if run["equal"] is False and _failed_alike(run)]
    if len(alike) == len(differences):
        return f"there is no answer to compare: {_raised(alike[0])}"
    return f"{bundle} is not what it should be: {count_text(len(differences), 'difference')}"


def _files_hint(bundle: Path, differences: list[dict[str, str]]) -> str:
    if any(found["what"] != UNLISTED for found in differences):
        return COMPILE_AGAIN
    return f"remove what compile did not write: {', '.join(str(bundle / found['where']) for found in differences[:3])}"


def _hint(runs: list[dict[str, Any]]) -> str:
    parted = [run for run in runs if run["equal"] is False]
    if all(_failed_alike(run) for run in parted):
        return "the plain function fails there, too, with the same error: compare an event that it answers"
    if not any(run["compared"] for run in parted):
        return "no outputs could be compared: what the run said that failed stands above"
    return "the outputs differ, as they always do where the function draws without a seed: if it doesn't, trace and compile it again"


def _failed_alike(run: dict[str, Any]) -> bool:
    ours, plain = run["runs"]["bundle"], run["runs"]["eager"]
    return bool(ours["error"]) and ours["error"] == plain["error"]


def _raised(run: dict[str, Any]) -> str:
    """What both runs said, for a line."""
    error = run["runs"]["eager"]["error"]
    said = error.partition("error: ")[2] or error
    return f"both raise the same: {printable(said.removeprefix('the function raised '))}"


def compare_event(bundle: Path, manifest: Manifest, text: str) -> dict[str, Any]:
    """Answer one event from the bundle and by the plain function, each in a fresh process, and compare the outputs.

    `equal` is None where they are not compared, since the manifest says that the function's plain runs differ among themselves.
    """
    if not manifest.reproducible:
        return {"compared": False, "equal": None, "runs": {}, "what": ""}
    runs = {"bundle": _run(bundle, text), "eager": _run(bundle, text, "--eager")}
    failed = [f"the {name} run failed: {run['error']}" for name, run in runs.items() if run["error"]]
    if failed:
        return {"compared": False, "equal": False, "runs": runs, "what": "; ".join(failed)}
    ours, plain = (runs[name]["output"] for name in ("bundle", "eager"))
    equal = same_output(ours, plain)
    return {"compared": True, "equal": equal, "runs": runs, "what": "" if equal else first_difference(ours, plain)}


def _run(bundle: Path, text: str, *options: str) -> dict[str, Any]:
    """The report of one `tidalctl run`, reduced to what is compared and shown. The event goes in by a pipe, at any size."""
    command = [sys.executable, "-P", "-m", "tidalctl", "run", str(bundle), "--event", "-", "--json", *options]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    report = _report(done.stdout)
    if done.returncode != 0 or report is None:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        error = next((line for line in lines if line.startswith("error: ")), lines[-1] if lines else "it printed no report")
        return {"error": f"exit code {done.returncode}: {error[:MAX_SHOWN]}", "output": None, "ttft_s": None, "fallback": None}
    return {"error": "", **{key: report.get(key) for key in ("output", "ttft_s", "fallback")}}


def _report(stdout: bytes) -> dict[str, Any] | None:
    """The report on the last line. A handler that printed without a line end stands before it on the same line."""
    last = stdout.decode(errors="replace").rstrip("\n").rpartition("\n")[2]
    start = last.find('{"schema"')
    while start >= 0:
        try:
            report = json.loads(last[start:])
        except ValueError:
            report = None
        if isinstance(report, dict) and "output" in report:
            return report
        start = last.find('{"schema"', start + 1)
    return None


def _show(checked: Checked, runs: list[dict[str, Any]], differences: list[dict[str, str]], asked: int) -> None:
    for check in checked.checks:
        size = f", {size_text(check['nbytes'])}" if check["nbytes"] else ""
        print(f"{'ok' if check['ok'] else 'DIFFERS':<8}{printable(check['what'])}{size}")
    for index, run in enumerate(runs):
        print(_run_line(index, run))
    if asked > len(runs):
        print(f"{'skipped':<8}{count_text(asked, 'event')}: nothing is run from a bundle whose files differ")
    said = {f"event {index}" for index, run in enumerate(runs) if run["equal"] is False and _failed_alike(run)}
    for found in (found for found in differences if found["where"] not in said):
        print(f"  {printable(found['where'])}: {printable(found['what'])}")


def _run_line(index: int, run: dict[str, Any]) -> str:
    if run["equal"] is None:
        why = printable(run["what"]) or "outputs are not compared, since the function's plain runs differ among themselves"
        return f"{'skipped':<8}event {index}: {why}"
    if not run["compared"]:
        if _failed_alike(run):
            return f"{'failed':<8}event {index}: {_raised(run)}"
        return f"{'DIFFERS':<8}event {index}: a run failed"
    ours, plain = run["runs"]["bundle"], run["runs"]["eager"]
    times = f"first token after {seconds_text(ours['ttft_s'])}, plain {seconds_text(plain['ttft_s'])}"
    fallback = f"; the bundle's run fell back: {printable(str(ours['fallback']))}" if ours["fallback"] else ""
    outcome = "ok" if run["equal"] else "DIFFERS"
    return f"{outcome:<8}event {index}: outputs {'are equal' if run['equal'] else 'differ'} ({times}){fallback}"
