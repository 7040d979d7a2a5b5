"""The events of a trace, which lie beside it: `NAME.events`, for its owner's eyes, while the trace holds their digests.

JSON lines, one an event, in the trace's order: `{"digest": "…", "event": {…}, "context": {…}}`, the latter where `--context` gave one.
`compile` needs them; no bundle contains them.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.bundle.directory import partial_name, publish, remove
from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.records import digest_json
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import Event

MODE = 0o600


def events_path(trace: Path) -> Path:
    """Return where the events of a trace lie: `app.events` for `app.trace`."""
    return trace.with_name(trace.name.removesuffix(".trace") + ".events")


def write_events(path: Path, texts: Sequence[str], context: str = "") -> None:
    """Write the events and their context's fields, given as JSON texts, in one step. What has the name is replaced."""
    partial = partial_name(path)
    remove(partial)
    more = {"context": json.loads(context)} if context else {}
    lines = "".join(
        json.dumps({"digest": digest_json(event), "event": event, **more}) + "\n" for event in map(json.loads, texts)
    )
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "wb") as file:
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())
        publish(partial, path)
    except OSError as error:
        raise TidalError(f"{error.strerror}: {path}", "free some space, or name another trace with -o") from None
    finally:
        remove(partial)


def with_events(trace: Trace, path: Path) -> Trace:
    """Return the trace that was read from `path` with the texts of its events. Raise TidalError where they are not beside it."""
    place = events_path(path)
    hint = f"{place.name} belongs beside the trace, as tidalctl trace left it: put it there, or trace again"
    try:
        lines = [json.loads(line) for line in place.read_bytes().split(b"\n") if line]
        events = tuple(_event(line) for line in lines)
    except OSError as error:
        raise TidalError(f"{path} needs its events, and {place} can't be read: {error.strerror}", hint) from None
    except (ValueError, RecursionError, KeyError, TypeError):
        raise TidalError(f"{place} does not hold events", hint) from None
    if [event.digest for event in events] != [event.digest for event in trace.header.events]:
        raise TidalError(f"{place} does not hold the events of {path}: their digests differ", hint)
    header = msgspec.structs.replace(trace.header, events=events)
    return Trace(header, [header, *trace.records[1:]], trace.complete)


def _event(line: Any) -> Event:
    """Return the event of a line, with the digest that it has and not the one that the line states."""
    event, context = line["event"], line.get("context")
    if not isinstance(event, dict) or not isinstance(context, dict | None):
        raise TypeError("an event is an object")
    return Event(digest=digest_json(event), text=json.dumps(event), context=json.dumps(context) if context else "")
