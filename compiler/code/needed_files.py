"""Files that the traced function opened and that a bundle does not hold: those outside the project, secrets, and checkpoints."""

import os
from collections.abc import Iterator
from pathlib import Path

from tidalctl.artifacts.bundle.manifest import NeededFile
from tidalctl.artifacts.project import inside
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import FileOpened, Import, PathAsked, Weight
from tidalctl.compiler.code.shipment import Shipment
from tidalctl.compiler.traced_files import event_texts, lies_outside, named_by_events, phases_of_use


def needed_files(trace: Trace, shipment: Shipment) -> tuple[NeededFile, ...]:
    """Return the files by phase and name. An event's own files are none of them: the request brings those."""
    found = dict.fromkeys(_opened(trace))
    needs = {(phase, _place(path)): _may_be_absent(path, trace) for phase, path in found}
    used = phases_of_use(trace)
    for name in (*shipment.secrets, *shipment.checkpoints):
        path = f"{inside(trace.header.root)}{name}"
        needs |= {(phase, f"project:{name}"): _may_be_absent(path, trace) for phase in used.get(path, ())}
    return tuple(NeededFile(file=file, phase=phase, optional=optional) for (phase, file), optional in sorted(needs.items()))


def _opened(trace: Trace) -> Iterator[tuple[str, str]]:
    """Yield phase and path of each file outside the project, also of those that a library opened by itself to read weights."""
    root, of_an_event = trace.header.root, named_by_events(trace)
    for record in trace.of(FileOpened):
        if not record.mapped and record.written is None and not of_an_event(record) and lies_outside(record.path, root):
            yield record.phase, record.path
    for module in trace.of(Import):
        if module.file.startswith("/") and module.file.endswith(".py") and lies_outside(module.file, root):
            yield "import", module.file
    texts = event_texts(trace)
    for file in dict.fromkeys(source.file for weight in trace.of(Weight) for source in weight.sources):
        if file.startswith("/") and file not in texts and lies_outside(file, root):
            yield "init", file


def _may_be_absent(path: str, trace: Trace) -> bool:
    """Whether the function may do without a file, or look for another: it asked first, or the path is the user's or the event's."""
    asked = any(question.path == path for question in trace.of(PathAsked))
    return asked or _place(path).startswith("~") or any(len(text) > 1 and text in path for text in event_texts(trace))


def _place(path: str) -> str:
    """Return a path as it is told: below the user's own folder, which is another's elsewhere, after `~`."""
    home = inside(str(Path.home()))
    return f"~/{os.path.relpath(path, home)}" if path.startswith(home) and home != os.sep else path
