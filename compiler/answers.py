"""Which tensors a template holds for replays: reads, and operators' outputs that become weights, none of which came from a request.

A file is not the request's when all events' inits read it, and when no text of the event that init saw stands in its path. Where init
saw something of the only event that there is, or the same in all events, nothing is known, and there are no answers.

Limit: a field that all traced events agree in may have named a file by way of a database.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from tidalctl.artifacts.manifest import Answer
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.tape import DOUBT, UNKNOWN, TapeRead, TapeStep, Value, place_of, values_in
from tidalctl.artifacts.weights import DTYPES
from tidalctl.compiler.expressions import bounded
from tidalctl.compiler.program import EventInit
from tidalctl.compiler.slicing import geometry_of, identities
from tidalctl.eventprobe import digest_value

LONG = 4  # characters of a text that is the event's wherever it stands in a path
_ALLOCATIONS = ("aten.empty", "aten.new_empty")  # what they hold is chance
# a conjugated tensor looks to a tape like the one that it is a view of, and so does a quantised one of another scale
_PLAIN = DTYPES.keys() - {"complex64"}


class _Use(Record, frozen=True):
    """A step and the identities of what it reads. `made` is the one new tensor that it makes, None where it does anything else."""

    inputs: tuple[str, ...]
    output: str = ""
    operator: str = ""
    made: Value | None = None
    bare: bool = False  # no number and no text among its arguments, which might be the event's


def plan_answers(inits: Sequence[EventInit], root: str, cwd: str = "") -> tuple[Answer, ...]:
    """The answers for a manifest, named by the entries that hold their content.

    One without a `weight` is a read whose content is not wanted, since only answered operators take it: the run reads it as ever,
    and knows what it is. `cwd` is where the function ran, for files that it named relatively.
    """
    if not _told_apart(inits):
        return ()
    reads = _static_reads(inits, root, cwd)
    lineage = _Lineage(inits, {read.identity for read, _ in reads})
    weights = {_sure(weight.identity) for init in inits for weight in init.weights}
    made = {output: use for output, use in lineage.made.items() if output in weights and use.made and _storable(use.made)}
    rests_on = {output: [one for one in lineage.of(output) if one in lineage.reads] for output in made}
    made = {output: use for output, use in made.items() if rests_on[output]}
    stored = _stored(reads, weights | {one for use in lineage.uses if use.output not in made for one in use.inputs})
    needed = {one for output in made for one in rests_on[output]}
    short = _short_names({place for _, place in reads})
    sources = {read.identity: f"{short[place]}#{read.key}" for read, place in reads}
    answers = [
        _answer(
            sources[read.identity] if read.identity in stored else "", read.identity, read.made, place, read.key, read.digest
        )
        for read, place in reads
        if read.identity in stored | needed
    ]
    taken = set(sources.values())
    for output, use in made.items():
        assert use.made is not None
        name = f"{sources[rests_on[output][0]]}:{use.operator}"
        name = next(n for n in (name, *(f"{name}.{i}" for i in range(1, len(made) + 1))) if n not in taken)
        taken.add(name)
        answers.append(_answer(name, output, use.made))
    return tuple(answers)


def sources_of(answers: Iterable[Answer], root: str) -> dict[str, list[int]]:
    """[size, mtime_ns] of the files that answers stand for, for the provenance. To be taken before their content is captured."""
    found = {}
    for place in sorted({answer.file for answer in answers if answer.file}):
        with contextlib.suppress(OSError):  # and it will not be answered
            status = os.stat(os.path.join(root, place.removeprefix("project:")) if place.startswith("project:") else place)
            found[place] = [status.st_size, status.st_mtime_ns]
    return found


def _answer(weight: str, identity: str, made: Value, file: str = "", key: str = "", digest: str = "") -> Answer:
    return Answer(
        weight=weight,
        identity=identity,
        dtype=made.dtype,
        shape=made.shape,
        stride=made.stride,
        file=file,
        key=key,
        digest=digest,
    )


def _short_names(places: set[str]) -> dict[str, str]:
    """The end of each file's path that tells it from the others'."""
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


# -- what is not the request's


def _told_apart(inits: Sequence[EventInit]) -> bool:
    """Whether the events can tell what depends on them."""
    seen = [(init.call.event_reads, digest_value(init.event) if init.call.event_whole else "") for init in inits]
    return any(one != seen[0] for one in seen) or not (seen[0][0] or seen[0][1])


def _static_reads(inits: Sequence[EventInit], root: str, cwd: str) -> list[tuple[TapeRead, str]]:
    """Reads whose content is known not to be the request's, each once, with the file's place. The same in all events that have them."""
    readers: dict[str, set[int]] = {}
    found: dict[tuple[str, str], dict[str, list[TapeRead]]] = {}
    for index, init in enumerate(inits):
        for record in init.records:
            if isinstance(record, TapeRead) and record.file != UNKNOWN:
                place = place_of(os.path.join(cwd, record.file), root)
                readers.setdefault(place, set()).add(index)
                if not record.operators:
                    alike = found.setdefault((place, record.key), {})
                    alike.setdefault(_sure(record.identity), []).append(record)
    texts = {text for init in inits for text in _seen_texts(init)}
    shared = {place for place, by in readers.items() if len(by) == len(inits)}
    static = {place for place in shared if not _named(place.removeprefix("project:"), readers, texts)}
    return [
        (read, place)
        for (place, key), alike in found.items()
        for read in [next((r for rows in alike.values() for r in rows if not r.identity.startswith(DOUBT)), None)]
        if read is not None and place in static and len(alike) == 1 and _loadable(read, place, key)
    ]


def _sure(identity: str) -> str:
    """A read that shares its memory with another is doubtful to a tape. A replay sees to it that the two are one."""
    return identity.removeprefix(DOUBT)


def _loadable(read: TapeRead, path: str, key: str) -> bool:
    """Whether a run would ask for it: safetensors and torch.load do, memory maps and GGUF don't."""
    asked = bool(key) and not key.startswith("@") and not path.endswith(".gguf")
    made = (
        read.made if path.endswith(".safetensors") else msgspec.structs.replace(read.made, offset=0)
    )  # storages are loaded whole
    return asked and _storable(made)


def _storable(made: Value) -> bool:
    return made.offset == 0 and made.size > 0 and made.device == "cpu" and made.dtype in _PLAIN


def _named(path: str, places: Iterable[str], texts: set[str | int]) -> bool:
    """Whether a text of the event stands in a path: by itself, or anywhere where it is long, or where it tells it from another's."""
    others = {place.removeprefix("project:") for place in places}
    for text in texts:
        if isinstance(text, int):
            if bounded(path, str(text)):
                return True
        elif text in path:
            alone = re.search(rf"(?<![^\W_]){re.escape(text)}(?![^\W_])", path)
            if alone or len(text) >= LONG or any(path.replace(text, str(other)) in others for other in texts - {text}):
                return True
    return False


def _seen_texts(init: EventInit) -> Iterator[str | int]:
    """The texts and whole numbers that init saw of the event."""
    for key, value in init.event.items():
        if init.call.event_whole or key in init.call.event_reads:
            yield from _texts_in(value)


def _texts_in(value: Any) -> Iterator[str | int]:
    if isinstance(value, str):
        yield from {value, value.strip("/")} - {""}
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts_in([key, inner])
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_in(inner)


# -- what becomes of it


def _uses(init: EventInit) -> Iterator[_Use]:
    """What each step that is not a view does with the contents of its operands."""
    now: dict[int, str] = {}
    made = geometry_of(init.records)
    for record in init.records:
        if isinstance(record, TapeRead):
            now[record.made.storage] = record.identity
            continue
        if record.view:
            continue
        operands = values_in([record.arguments, list(record.keywords.values())])
        inputs = tuple(dict.fromkeys(_sure(now.get(made[number].storage, "")) for number in operands))
        now.update(record.identities)
        plain = all(made[number].dtype in _PLAIN for number in (*operands, *record.outputs))
        if len(record.identities) == len(record.outputs) == 1 and not record.writes and plain and not _by_chance(record):
            bare = _bare([record.arguments, list(record.keywords.values())])
            output = record.identities[0][1]
            yield _Use(inputs=inputs, output=output, operator=record.operator, made=record.made[0], bare=bare)
        else:
            yield _Use(inputs=inputs)


def _by_chance(record: TapeStep) -> bool:
    drawn = record.draws or any(isinstance(v, dict) and "generator" in v for v in record.keywords.values())
    return bool(drawn) or record.operator.startswith(_ALLOCATIONS)


def _bare(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_bare(inner) for inner in value)
    return (
        value is None
        or isinstance(value, bool)
        or (isinstance(value, dict) and not value.keys() & {"float", "complex", "opaque"})
    )


class _Lineage:
    """What rests on the given reads, on what all events have alike, and on nothing else. `made` are the operators that make it."""

    def __init__(self, inits: Sequence[EventInit], reads: set[str]) -> None:
        common = set.intersection(*(identities(init.records) for init in inits))
        self.reads = reads
        self.uses = [use for init in inits for use in _uses(init)]
        self.made: dict[str, _Use] = {}
        for use in self.uses:  # in the order of the tapes
            alike = (use.bare or use.output in common) and not use.output.startswith(DOUBT)
            if use.made and alike and all(one in reads or one in self.made for one in use.inputs):
                self.made.setdefault(use.output, use)

    def of(self, output: str) -> Iterator[str]:
        """The identities that an output rests on."""
        seen: set[str] = set()
        pending = [output]
        while pending:
            use = self.made.get(pending.pop())
            for one in use.inputs if use is not None else ():
                if one not in seen:
                    seen.add(one)
                    pending.append(one)
                    yield one


def _stored(reads: Sequence[tuple[TapeRead, str]], wanted: set[str]) -> set[str]:
    """Reads that need content: those that are wanted, and of a file that is loaded whole all or none, as most of its bytes are."""
    stored = {read.identity for read, _ in reads if read.identity in wanted}
    for place in {place for _, place in reads if not place.endswith(".safetensors")}:
        own = [read for read, other in reads if other == place]
        held = sum(read.made.size for read in own if read.identity in stored)
        change = stored.update if 2 * held >= sum(read.made.size for read in own) and held else stored.difference_update
        change(read.identity for read in own)
    return stored
