"""What a trace tells of a file: where it lies, in which phases it was used, and whether it is an event's own."""

import json
import os
from collections.abc import Callable

from tidalctl.artifacts.project import inside, installed, is_own
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import FileOpened, PathAsked
from tidalctl.compiler.dynamic.answers import texts_in

UsedFile = FileOpened | PathAsked
SYSTEM = ("/usr/", "/lib/", "/lib64/", "/etc/", "/proc/", "/sys/", "/dev/", "/tmp/torchinductor")


def lies_outside(path: str, root: str) -> bool:
    """Whether a file is neither the project's, nor installed with Python, nor the system's."""
    return not path.startswith((*installed(), *SYSTEM, inside(root))) and not is_own(path, root)


def event_texts(trace: Trace) -> set[str]:
    """Return the texts, and the whole numbers as texts, that the traced events hold."""
    return {text for event in trace.header.events for text in texts_in(json.loads(event.text))}


def named_by_events(trace: Trace) -> Callable[[UsedFile], bool]:
    """Return a function that says whether an event names a file, or a folder above it: the request brings it, wherever the bundle is.

    A name that the program has put together, of its own folder and a text of the event, say, is the program's.
    """
    texts = {text.rstrip("/") for text in event_texts(trace)} - {""}
    folders = tuple({f"{os.path.realpath(text)}/" for text in texts if text.startswith("/")})

    def named(file: UsedFile) -> bool:
        given = f"{file.given}/"
        return bool(file.given) and (
            any(given.startswith(f"{text}/") for text in texts if text == file.given or "/" in text)
            or (bool(folders) and f"{os.path.realpath(file.path)}/".startswith(folders))
        )

    return named


def phases_of_use(trace: Trace) -> dict[str, set[str]]:
    """Return the phases in which each file was opened, asked about, or listed with its folder, by its path.

    One that a library has mapped by itself counts as the handler's, since nobody saw when that was.
    """
    found: dict[str, set[str]] = {}
    listed: dict[str, set[str]] = {}
    for record in (*trace.of(FileOpened), *trace.of(PathAsked)):
        found.setdefault(record.path, set()).add(record.phase)
        if isinstance(record, PathAsked) and record.kind == "listed":
            listed.setdefault(record.path, set()).add(record.phase)
    return {path: phases | listed.get(os.path.dirname(path), set()) for path, phases in found.items()}
