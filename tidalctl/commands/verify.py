"""`tidalctl verify`: check a bundle against its manifest and, with `--event`, against the plain function."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.artifacts.bundle.provenance import ProjectChanged, changed_files, names_text, project_of, read_provenance
from tidalctl.artifacts.bundle.verification import UNLISTED, Checked, check_bundle
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.errors import COMPILE_AGAIN, CheckFailed, TidalError
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.remedy import remedy
from tidalctl.commands.context_option import CONTEXT
from tidalctl.function.child_process import answer_from_bundle
from tidalctl.function.context import parse_context
from tidalctl.function.event import parse_event
from tidalctl.function.output_comparison import first_difference, same_output
from tidalctl.report.needs import file_text
from tidalctl.report.terminal import count_text, printable, seconds_text, size_text, transfer_progress
from tidalctl.runtime.here import Here, look_here

SCHEMA = 1
MAX_SHOWN = 500  # characters of a message from a run that failed


def verify(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle, as compile wrote it.")],
    event: Annotated[
        list[str] | None,
        typer.Option("--event", "-e", metavar="JSON|FILE|-", help="Compare a run of it with the plain function. Repeatable."),
    ] = None,
    fields: Annotated[str | None, CONTEXT] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Tell whether a start in this place uses the bundle's state, and all that differs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON document.")] = False,
) -> None:
    """Check a bundle's files and, with --event, its answers.

    Files are held against the manifest, answers against the plain function's: the handler is called twice for each event. Exit
    code 1: something differs. Arguments after -- are the function's, for --here and --event.
    """
    argv = tuple(context.args)
    if argv and not here and not event:
        raise TidalError(f"arguments for the function ({argv[0]} …), and nothing runs it", "give --here or --event, too")
    given_context = parse_context(fields) if fields is not None else ""
    texts = [parse_event(given)[1] for given in event or ()]  # before the files are read, which can take a while
    with transfer_progress("checking") as progress:
        checked = check_bundle(bundle, progress)
    runs: list[Comparison] = []
    gone, changed = None, list[str]()
    if checked.manifest is not None and not checked.differences:
        try:
            changed = changed_files(checked.manifest, project_of(read_provenance(bundle), checked.manifest))
        except TidalError as error:  # there is no project to compare with
            gone = error
            changed = [checked.manifest.function.source] if isinstance(error, ProjectChanged) else []
        runs = [compare_event(bundle, checked.manifest, text, gone, argv, given_context, here=here) for text in texts]
    handler_runs = sum(len(run.runs) for run in runs)
    place = look_here(bundle, checked.manifest, argv) if here and checked.manifest is not None else None
    unmet = _unmet(place, runs) if place is not None else []
    missed = gone if any(run.what and run.equal is None for run in runs) else None
    parted = {f"event {index}": run for index, run in enumerate(runs) if run.equal is False}
    differences = [*checked.differences, *({"where": where, "what": run.what} for where, run in parted.items())]
    spoiled = bool(differences)
    differences += [{"where": "here", "what": text} for text in (place.refused if place is not None else ())]
    differences += [{"where": where, "what": str(reason)} for where, reason in unmet]
    missing = [file_text(needed) for needed in place.missing if not needed.optional] if place is not None else []
    differences += [{"where": name, "what": "is not here, and the traced function read it"} for name in missing]
    if as_json:
        document = {
            "schema": SCHEMA,
            "bundle": str(bundle),
            "digest": checked.manifest.digest if checked.manifest else None,
            "ok": not differences and missed is None,
            "checks": checked.checks,
            "changed": changed,
            "here": place,
            "events": runs,
            "handler_runs": handler_runs,
            "differences": differences,
        }
        print(msgspec.json.format(msgspec.json.encode(document), indent=1).decode())
    else:
        _show(checked, runs, len(texts))
        if place is not None:
            _show_here(place, checked.manifest)
        for found in differences:
            if found["where"] not in parted or not parted[found["where"]].same_error:
                print(f"  {printable(found['where'])}: {printable(found['what'])}")
        if changed:
            what = "compared with the code as it was compiled" if texts else "the bundle runs the code as it was compiled"
            print(f"{'note':<8}{printable(names_text(changed))} changed in the project: {what}")
        if runs:
            print(f"the handler ran {count_text(handler_runs, 'time')}")
    if place is not None and differences and not spoiled:
        raise _verdict_here(bundle, place, unmet, missing)
    if differences:
        raise _verdict(bundle, checked.differences, list(parted.values()))
    if missed:
        raise missed


class _Answer(Record, frozen=True):
    """What one `tidalctl run` gave; `error` is empty where it answered."""

    error: str
    output: Any
    ttft_s: float | None
    fallback: str | None
    cause: str | None


class Comparison(Record, frozen=True):
    """One event, answered from the bundle and by the plain function. `equal` is None where the outputs can't be compared."""

    compared: bool
    equal: bool | None
    runs: dict[str, _Answer]
    what: str

    @property
    def same_error(self) -> str | None:
        """What both runs raise, for a line, or None."""
        errors = {run.error for run in self.runs.values()}
        if self.equal is not False or len(errors) > 1 or "" in errors:
            return None
        error = errors.pop()
        said = error.partition("error: ")[2] or error
        return f"both raise the same: {printable(said.removeprefix('the function raised '))}"


def compare_event(
    bundle: Path,
    manifest: Manifest,
    text: str,
    gone: TidalError | None = None,
    argv: tuple[str, ...] = (),
    context: str = "",
    *,
    here: bool = False,
) -> Comparison:
    """Answer one event from the bundle and by the plain function, each in a fresh process, and compare the outputs.

    A plain run that fails where its project is `gone` says nothing about the bundle, nor does one of a function whose plain runs
    differ among themselves; that is run from the bundle alone where somebody asks how it starts `here`.
    """
    arguments = (*(("--context", context) if context else ()), *(("--", *argv) if argv else ()))
    if not manifest.reproducible:
        alone = {"bundle": _answer(bundle, text, "--image", "off", *arguments)} if here else {}
        return Comparison(compared=False, equal=None, runs=alone, what="")
    runs = {
        "bundle": _answer(bundle, text, "--image", "off", *arguments),
        "eager": _answer(bundle, text, "--eager", *arguments),
    }
    ours, plain = runs["bundle"], runs["eager"]
    if gone and plain.error and not ours.error:
        return Comparison(compared=False, equal=None, runs=runs, what=gone.message)
    if ours.error or plain.error:
        what = "; ".join(f"the {name} run failed: {run.error}" for name, run in runs.items() if run.error)
        return Comparison(compared=False, equal=False, runs=runs, what=what)
    equal = same_output(ours.output, plain.output)
    what = "" if equal else first_difference(ours.output, plain.output)
    return Comparison(compared=True, equal=equal, runs=runs, what=what)


def _answer(bundle: Path, text: str, *options: str) -> _Answer:
    report = answer_from_bundle(bundle, text, *options)
    error = f"exit code {report['exit_code']}: {report['failed'][:MAX_SHOWN]}" if "failed" in report else ""
    return _Answer(error=error, **{key: report.get(key) for key in ("output", "ttft_s", "fallback", "cause")})


def _unmet(place: Here, runs: list[Comparison]) -> list[tuple[str, Reason]]:
    """What keeps a start here from the bundle's state: what differs, and what runs of events found out besides, with where."""
    found = [("here", reason) for reason in place.mismatches]
    known = {reason.code for reason in place.mismatches}
    for index, run in enumerate(runs):
        ours = run.runs.get("bundle")
        if ours is not None and ours.fallback and ours.cause and ours.cause not in known:
            found.append((f"event {index}", Reason(code=ours.cause, text=ours.fallback)))
    return found


def _verdict_here(bundle: Path, place: Here, unmet: list[tuple[str, Reason]], missing: list[str]) -> CheckFailed:
    """What is told where the bundle is right, and its state is not used here or a start lacks files."""
    if place.refused:
        return CheckFailed(f"{bundle} can't start here: {place.refused[0]}", "trace and compile the function here")
    if not unmet:
        return CheckFailed(f"{bundle} would not find what the traced function read", f"put here: {', '.join(missing)}")
    more = f", and {len(unmet) - 1} more" if len(unmet) > 1 else ""
    does = "holds no state" if unmet[0][1].code == Cause.NO_INIT.code else "would run init here"
    return CheckFailed(f"{bundle} {does}: {unmet[0][1]}{more}", remedy(unmet[0][1]))


def _verdict(bundle: Path, files: list[dict[str, str]], parted: list[Comparison]) -> CheckFailed:
    """What is told where a file or an answer differs, and what to do about it."""
    message = f"{bundle} is not what it should be: {count_text(len(files) + len(parted), 'difference')}"
    if any(found["what"] != UNLISTED for found in files):
        return CheckFailed(message, COMPILE_AGAIN)
    if files:
        return CheckFailed(
            message, f"remove what compile did not write: {', '.join(str(bundle / f['where']) for f in files[:3])}"
        )
    if all(run.same_error for run in parted):
        return CheckFailed(
            f"there is no answer to compare: {parted[0].same_error}",
            "the plain function fails there, too, with the same error: compare an event that it answers",
        )
    if not any(run.compared for run in parted):
        return CheckFailed(message, "no outputs could be compared: what the run said that failed stands above")
    hint = (
        "the outputs differ, as they always do where the function draws without a seed: if it doesn't, it hangs on something that "
        "docs/contract.md#not-seen lists, or on a variable to compare (compile --pin-env NAME)"
    )
    return CheckFailed(message, hint)


def _show(checked: Checked, runs: list[Comparison], asked: int) -> None:
    for check in checked.checks:
        size = f", {size_text(check['nbytes'])}" if check["nbytes"] else ""
        print(f"{'ok' if check['ok'] else 'DIFFERS':<8}{printable(check['what'])}{size}")
    for index, run in enumerate(runs):
        outcome, text = _outcome(run)
        print(f"{outcome:<8}event {index}{text}")
    if asked > len(runs):
        print(f"{'skipped':<8}{count_text(asked, 'event')}: nothing is run from a bundle whose files differ")


def _show_here(place: Here, manifest: Manifest | None) -> None:
    if place.refused:
        print(f"{'DIFFERS':<8}here: nothing can be started from the bundle")
    elif place.mismatches:
        no_state = place.mismatches[0].code == Cause.NO_INIT.code
        print(f"{'DIFFERS':<8}here: {'there is no state to restore' if no_state else 'a start would run init'}")
    else:
        print(f"{'ok':<8}here: a start uses the bundle's state ({place.strategy})")
    for needed in place.missing:
        if needed.optional:
            print(
                f"{'note':<8}{printable(file_text(needed))} is not here: the function may do without it, or find it elsewhere"
            )
    if place.checked_at_init:
        print(f"{'':<8}checked by a start, where {manifest.init if manifest else 'init'} is called:")
    for text in place.checked_at_init:
        print(f"{'':<10}{printable(text)}")


def _outcome(run: Comparison) -> tuple[str, str]:
    if run.equal is None:
        why = printable(run.what) or "outputs are not compared, since the function's plain runs differ among themselves"
        return "skipped", f": {why}"
    if run.same_error:
        return "failed", f": {run.same_error}"
    if not run.compared:
        return "DIFFERS", ": a run failed"
    ours, plain = run.runs["bundle"], run.runs["eager"]
    times = f"first token after {seconds_text(ours.ttft_s)}, plain {seconds_text(plain.ttft_s)}"
    fallback = f"; the bundle's run fell back: {printable(ours.fallback)}" if ours.fallback else ""
    outcome, how = ("ok", "are equal") if run.equal else ("DIFFERS", "differ")
    return outcome, f": outputs {how} ({times}){fallback}"
