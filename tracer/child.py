"""The traced process's entry: recorders first, then the user's module, so that torch's own import is recorded as well."""

import contextlib
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from tidalctl import __version__
from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.records import digest_json
from tidalctl.artifacts.trace import records as t
from tidalctl.artifacts.trace.file import TraceWriter
from tidalctl.function.child_process import end_child, read_request
from tidalctl.function.filled_object import filling_objects
from tidalctl.function.init_mark import answer_inits_with
from tidalctl.function.target import enter_project, import_handler
from tidalctl.tracer.init.discovery import Discovery
from tidalctl.tracer.process.asked_paths import PathRecorder
from tidalctl.tracer.process.clock import TraceClock
from tidalctl.tracer.process.environment import EnvironRecorder
from tidalctl.tracer.process.files import FileRecorder
from tidalctl.tracer.process.import_work import WorkRecorder
from tidalctl.tracer.process.imports import ImportRecorder
from tidalctl.tracer.request import Request

if TYPE_CHECKING:
    from tidalctl.tracer.session import Session


def main(path: str) -> None:
    request = read_request(path, Request)
    end_child(lambda: _write_trace(request), request.partial)


def _write_trace(request: Request) -> int:
    """Write the trace, incomplete where the function fails. Return the exit code."""
    events = [msgspec.json.decode(text) for text in request.events]
    writer = TraceWriter(Path(request.partial))
    try:
        writer.write(
            t.Header(
                schema=t.SCHEMA,
                tidalctl=__version__,
                function=request.function,
                root=request.root,
                cwd=os.getcwd(),
                argv=request.argv,
                events=tuple(t.Event(digest=digest_json(event)) for event in events),
                vary=request.vary,
                once=request.once,
            )
        )
        return _trace(request, events, writer)
    except TidalError as error:
        if error.exit_code != 1:
            raise
        writer.write(t.Failure(phase="handler", message=error.message, hint=error.hint or ""))
        writer.close(complete=False)
        return 1  # the parent says what the trace does


def _trace(request: Request, events: list[dict[str, Any]], writer: TraceWriter) -> int:
    clock = TraceClock()
    watched: list[Session] = []

    discovery = Discovery(request)
    work, environ = WorkRecorder(), EnvironRecorder(clock, request.root)

    def after_import(module: ModuleType) -> None:
        work.imported(module)
        discovery.imported(module)
        environ.imported(module)
        for made in watched:
            made.after_import(module)

    files = FileRecorder(clock, request.root)
    root = Path(request.root)
    try:
        with (
            environ,
            ImportRecorder(clock, after_import, request.root) as imports,
            PathRecorder(clock, request.root) as asked,
            work,
        ):
            enter_project(root, root / request.function.source, request.argv)
            with contextlib.ExitStack() as watching:

                def session() -> "Session":
                    """Made late, so that torch is imported by the function and not by us, and early enough for an init at import."""
                    if not watched:
                        from tidalctl.tracer.session import Session

                        watched.append(Session(writer, clock, request, files.note))
                        watching.enter_context(watched[0].watch)
                    return watched[0]

                def answer(*call: Any) -> Any:
                    environ.init_called()
                    try:
                        return session().answer_init(*call)
                    finally:
                        work.stop()

                answer_inits_with(filling_objects(answer))
                with discovery:
                    handler = import_handler(request.function)
                if not watched and (lines := discovery.lines()):
                    return _discovered(writer, lines)
                if request.discover:
                    built = discovery.function(handler, events[0])
                    return _discovered(writer, [built] if built is not None else [])
                for index, event in enumerate(events):
                    with discovery.of_a_call(index):
                        session().invoke(handler, event, index)
            files.stop()
    except TidalError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's function may raise anything
        return _failed(writer, error)
    from tidalctl.tracer.session import environment

    if watched[0].state is None and (built := discovery.built()) is not None:
        writer.write(built)
    records = imports.imports(files.written)
    for record in records:
        writer.write(record)
    writer.write(environ.reads())
    writer.write(t.Executed(files=tuple(sorted(watched[0].executed))))
    writer.write(t.SourcesRead(files=files.sources()))
    writer.write(work.work())
    for opened in files.files():
        writer.write(opened)
    for looked_up in (*asked.paths(), *files.missing()):
        writer.write(looked_up)
    writer.write(environment(records, watched[0].state, request.root))
    cost = clock.cost
    writer.write(
        t.TracingCost(
            total_s=clock.total_s(),
            hooks_s=cost["hooks"],
            digests_s=cost["digests"],
            profiler_s=cost["profiler"],
            profile=request.tensorboard,
        )
    )
    writer.close(complete=True)
    return 0


def _discovered(writer: TraceWriter, found: list[t.WeightsBuilt]) -> int:
    """End here, with what could be named as init: the parent traces again."""
    for built in found:
        writer.write(built)
    writer.close(complete=False)
    return 0


def _failed(writer: TraceWriter, error: BaseException) -> int:
    """Show the user's traceback, without the frames that are ours, and leave the trace incomplete."""
    import traceback

    from tidalctl.function.tracebacks import show_traceback

    message = "".join(traceback.format_exception_only(type(error), error)).strip()
    writer.write(t.Failure(phase=_phase_of(error), message=message))
    writer.close(complete=False)
    show_traceback(error)
    return 1


def _phase_of(error: BaseException) -> str:
    """In what it was raised, by the calls of ours that it came through: the clock has gone back to where it was before them."""
    frames, ours = error.__traceback__, set()
    while frames is not None:
        if frames.tb_frame.f_globals.get("__name__") == "tidalctl.tracer.session":
            ours.add(frames.tb_frame.f_code.co_name)
        frames = frames.tb_next
    return "init" if "answer_init" in ours else "handler" if "invoke" in ours else "import"
