"""One start of a function from its bundle: `tidalctl run`."""

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.errors import FunctionError, output_full
from tidalctl.function.context import parse_context
from tidalctl.function.event import parse_event
from tidalctl.runtime.answer import Piece, answer_pieces
from tidalctl.runtime.process.exit import watch_writes
from tidalctl.runtime.process.frame_stack import with_frame_stack
from tidalctl.runtime.process.report_output import ReportOutput
from tidalctl.runtime.process.timeline import Timeline, process_entered_ns, process_start_ns
from tidalctl.runtime.requirement import Requirement
from tidalctl.runtime.start_report import phase_table, start_report, write_page
from tidalctl.runtime.template import Template
from tidalctl.runtime.weights.weight_stream import StreamOptions

NAMED = 20  # missing files in one hint


class RunOptions(msgspec.Struct, frozen=True):
    """What `tidalctl run` was asked for."""

    bundle: str
    event: str
    json: bool = False
    timeline: str | None = None
    report: str | None = None
    verify: str = "stream"  # stream, full or off
    ahead: int | None = None  # bytes that are read beyond what was needed
    io: str = "auto"  # auto, direct or buffered: how weights for a device are read
    prewarm: str = "auto"  # auto, list or off
    eager: bool = False
    state: bool = False
    require: str | None = None  # snapshot, script or replay: the only strategy by which the state may be made
    context: str | None = None  # fields of the handler's context: JSON, or a file that holds it
    argv: tuple[str, ...] = ()
    no_image: tuple[str, str] | None = None  # why the bundle's process image was not used: code and text of the cause


def start(fields: dict[str, Any]) -> int:
    """Run with the fields of RunOptions, whichever parser they came from. Time counts from the start of the process."""
    entered = process_entered_ns()
    timeline = Timeline(process_start_ns(), entered)
    timeline.add("start", entered, time.monotonic_ns())
    watch_writes()
    options = RunOptions(**fields)
    return run(options, timeline) if options.eager else with_frame_stack(lambda: run(options, timeline))


def run(options: RunOptions, timeline: Timeline, template: Template | None = None, kind: str = "process") -> int:
    """Answer one event, printing each piece as it comes. Returns the exit code; the report goes to stdout (json) or stderr.

    `template` is one that has imported the function already, as a host's worker has; `kind` is what the worker is.
    """
    files = {option: Path(file).absolute() for option in ("timeline", "report") if (file := getattr(options, option))}
    if files:
        from tidalctl.artifacts.bundle.output_paths import refuse_files

        refuse_files({option: getattr(options, option) for option in files})
    with timeline.span("start"):
        event, _ = parse_event(options.event)
        given = parse_context(options.context) if options.context is not None else ""
    report_output = ReportOutput() if options.json else None
    if template is None:
        streamed = StreamOptions(verify=options.verify, ahead=options.ahead, io=options.io)
        template = Template(Path(options.bundle), timeline, streamed, options.prewarm, options.require)
    template.requirement = Requirement(template.manifest, options.require)
    template.wants_digests = options.state
    template.on_missing = _tell_missing
    if options.io != "auto" and not template.weights.on_device:
        print("note: --io is for weights that go to a GPU; this function's are mapped from the page cache", file=sys.stderr)
    try:
        output, streams = _answer(options, template, event, given)
    except FunctionError:
        _tell_changes(template)
        if "timeline" in files:
            files["timeline"].write_bytes(timeline.chrome_trace())
        if "report" in files:
            print(
                "note: no page was written: --report shows a start that ended; --timeline is written of this one, too",
                file=sys.stderr,
            )
        raise
    finally:
        template.over()
    if not options.json and streams and output and isinstance(output[-1], str) and not output[-1].endswith("\n"):
        print(flush=True)
    _tell_changes(template)
    if "timeline" in files:
        files["timeline"].write_bytes(timeline.chrome_trace())
    report = start_report(
        options.bundle, template, output if streams else output[0], streamed=streams, start=kind, no_image=options.no_image
    )
    if "report" in files:
        write_page(files["report"], timeline, report)
    if report_output is not None:
        report_output.write(report)
    else:
        print(phase_table(report), file=sys.stderr)
    return 0


def _answer(options: RunOptions, template: Template, event: Any, given: str) -> tuple[list[Any], bool]:
    """Have the event answered, and print what the handler gives. Return its pieces, and whether it is a stream of them.

    `given` are fields of its context.
    """
    output: list[Any] = []
    streams = True  # where it gives nothing, that is a stream
    try:
        with closing(answer_pieces(template, event, given, options.argv, eager=options.eager)) as given_pieces:
            for piece in given_pieces:
                output.append(piece.value)
                streams = piece.streamed
                if not options.json:
                    _show(piece)
    except FunctionError as error:
        if error.__cause__ is not None:
            error.hint = _hint(template, options)
        raise
    return output, streams


def _tell_missing(names: list[str]) -> None:
    """Tell, before the import, which files that the traced function read are not here."""
    from tidalctl.artifacts.bundle.provenance import names_text

    print(f"note: the traced function read files that are not here: {names_text(names)}", file=sys.stderr)


def _tell_changes(template: Template) -> None:
    """Tell, once the answer is out, what of the project has changed since compile."""
    changed = template.changed_sources()
    if changed:
        from tidalctl.artifacts.bundle.provenance import names_text

        print(
            f"note: {names_text(changed)} changed in the project: the bundle runs the code as it was compiled",
            file=sys.stderr,
        )


def _show(piece: Piece) -> None:
    """Strings of a stream stand one after the other, as they are; anything else is a line of JSON."""
    try:
        if piece.streamed and isinstance(piece.value, str):
            print(piece.value, end="", flush=True)
        else:
            print(piece.text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_full(error) from None


def _hint(template: Template, options: RunOptions) -> str | None:
    if options.eager:
        return None
    if missing := template.missing_files(optional=True):
        more = (
            f" and {len(missing) - NAMED} more (all: tidalctl verify {options.bundle} --here)" if len(missing) > NAMED else ""
        )
        why = f"init ran: {template.fallback}; " if template.fallback is not None and template.manifest.init else ""
        return f"{why}put here what the traced function read: {', '.join(missing[:NAMED])}{more}"
    if template.fallback is None or not template.manifest.init:
        return "whether it does so without the bundle's state, too: the same command with --eager"
    return f"init ran the ordinary way: {template.fallback}"
