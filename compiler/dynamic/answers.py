"""Which reads of init a replay answers from the bundle: those of tensors that are known not to be a request's.

A file is static where every traced event's init reads it, and no text or whole number that init saw of an event stands in its path. So
that nothing of a request gets into a bundle, there are no answers where init saw something of the only traced event.

Limit: a field that all traced events agree in may have named a file by way of a database.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from tidalctl.artifacts.bundle.manifest import Answer
from tidalctl.artifacts.bundle.weights_file import DTYPES
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace.tape import DOUBT, UNKNOWN, TapeRead, Value, place_of
from tidalctl.compiler.dynamic.recorded_init import EventInit

LONG = 4  # characters of a text that is the event's wherever it stands in a path
# a tape can't tell a conjugated tensor from the one that it is a view of
_PLAIN = DTYPES.keys() - {"complex64"}


class PlannedAnswer(Record, frozen=True):
    """An answer, with the identity that the tape gave the tensor as it was read, and the sha256 of its content."""

    answer: Answer
    identity: str
    digest: str


def plan_answers(inits: Sequence[EventInit], root: str, cwd: str) -> tuple[PlannedAnswer, ...]:
    """Return an answer for each read of a static tensor, in the order in which init reads them.

    `root` is the project's folder, and `cwd` where the function ran, for files that it named relatively.
    """
    call = inits[0].call
    if len(inits) == 1 and (call.event_reads or call.event_whole):
        return ()
    reads = _static_reads(inits, root, cwd)
    short = _short_names({place for _, place in reads})
    return tuple(
        PlannedAnswer(
            answer=Answer(
                weight=f"{short[place]}#{read.key}",
                file=place,
                key=read.key,
                dtype=read.made.dtype,
                shape=read.made.shape,
                stride=read.made.stride,
            ),
            identity=read.identity,
            digest=read.digest,
        )
        for read, place in reads
    )


def sources_of(answers: Iterable[PlannedAnswer], root: str) -> dict[str, tuple[int, int]]:
    """Return size and mtime_ns of the files that are answered for. To be called before their content is captured."""
    found = {}
    for place in sorted({planned.answer.file for planned in answers}):
        with contextlib.suppress(OSError):  # a start reads a file that has no entry here
            status = os.stat(os.path.join(root, place.removeprefix("project:")) if place.startswith("project:") else place)
            found[place] = (status.st_size, status.st_mtime_ns)
    return found


def _short_names(places: set[str]) -> dict[str, str]:
    """Return the shortest end of each file's path that no other file's path has."""
    paths = {place: place.removeprefix("project:").strip("/").split("/") for place in places}
    found = {}
    for place, parts in paths.items():
        ends = [["", *parts][-count:] for count in range(1, len(parts) + 2)]
        found[place] = next(
            "/".join(end).strip("/")
            for end in ends
            if not any(["", *o][-len(end) :] == end for p, o in paths.items() if p != place)
        )
    return found


def _static_reads(inits: Sequence[EventInit], root: str, cwd: str) -> list[tuple[TapeRead, str]]:
    """Return each read of a static file once, with the file's place. Its content was the same in all events."""
    readers: dict[str, set[int]] = {}
    found: dict[tuple[str, str], list[TapeRead]] = {}
    for index, init in enumerate(inits):
        for record in init.records:
            if isinstance(record, TapeRead) and record.file != UNKNOWN:
                place = place_of(os.path.join(cwd, record.file), root)
                readers.setdefault(place, set()).add(index)
                if not record.operators:
                    found.setdefault((place, record.key), []).append(record)
    texts = {text for init in inits for text in _seen_texts(init)}
    static = {place for place, by in readers.items() if len(by) == len(inits) and not _names(place, texts)}
    reads = []
    partly = set()  # torch.load loads a file whole, so that all of it has to be answered
    for (place, _), alike in found.items():
        sure = next((read for read in alike if not read.identity.startswith(DOUBT)), None)
        same = len({read.identity.removeprefix(DOUBT) for read in alike}) == 1
        if sure is not None and same and _loadable(sure, place):
            reads.append((sure, place))
        elif not place.endswith(".safetensors"):
            partly.add(place)
    return [(read, place) for read, place in reads if place in static - partly]


def _loadable(read: TapeRead, place: str) -> bool:
    """Whether a replay can answer it: a tensor on the CPU, read by safetensors or torch.load, not from a memory map or a GGUF file."""
    asked = bool(read.key) and not read.key.startswith("@") and not place.endswith(".gguf")
    # torch.load reads whole storages, of which a tensor may be a part
    made: Value = read.made if place.endswith(".safetensors") else msgspec.structs.replace(read.made, offset=0)
    return asked and made.offset == 0 and made.size > 0 and made.device == "cpu" and made.dtype in _PLAIN


def _names(place: str, texts: set[str]) -> bool:
    """Whether one of the texts stands in a file's path: between separators, or anywhere where it is long."""
    path = place.removeprefix("project:")
    return any(
        text in path and (len(text) >= LONG or re.search(rf"(?<![^\W_]){re.escape(text)}(?![^\W_])", path)) for text in texts
    )


def _seen_texts(init: EventInit) -> Iterator[str]:
    """Yield the texts and whole numbers that init saw of the event."""
    for key, value in init.event.items():
        if init.call.event_whole or key in init.call.event_reads:
            yield from texts_in(value)


def texts_in(value: Any) -> Iterator[str]:
    """Yield the texts, and the whole numbers as texts, that a JSON value holds."""
    if isinstance(value, str):
        yield from {value, value.strip("/")} - {""}
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from texts_in([key, inner])
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)
