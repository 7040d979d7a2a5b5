"""What a script takes from the request: the fields of the event that init read, and the files that they name."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tidalctl.artifacts.cause import Cause
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace.tape import TapeRead
from tidalctl.compiler.dynamic.expressions import Atom, around, bounded, path_parts
from tidalctl.compiler.dynamic.program import ProgramFile
from tidalctl.compiler.dynamic.slicing import NotSliced
from tidalctl.compiler.script.support import content_digest, read_header, read_json
from tidalctl.function.event_probe import ABSENT, digest_value

if TYPE_CHECKING:
    from tidalctl.compiler.dynamic.recorded_init import EventInit


class EventFields(Record, frozen=True):
    """The fields that init read. `equal` maps those that must be as traced to digests, `varied` those that may differ to JSON types.

    `texts` are the varied texts with their traced values, and `numbers` all numbers.
    """

    equal: dict[str, str]
    varied: dict[str, str]
    texts: dict[str, tuple[str, ...]]
    numbers: tuple[Atom, ...]


def event_fields(inits: "Sequence[EventInit]", vary: Iterable[str]) -> EventFields:
    """A field in which the traced events agree must stay as it is, since no trace shows what depends on it.

    Raises NotSliced where one in which they differ is not among `vary`, or neither a text nor a number.
    """
    equal: dict[str, str] = {}
    varied: dict[str, str] = {}
    texts: dict[str, tuple[str, ...]] = {}
    numbers: list[Atom] = []
    differing: list[str] = []
    for key in sorted({key for init in inits for key in init.call.event_reads}):
        values: list[Any] = [init.event.get(key) for init in inits]
        digests = [digest_value([init.event[key]] if key in init.event else ABSENT) for init in inits]
        if len(set(digests)) == 1:
            equal[key] = digests[0]
        else:
            differing.append(key)
        if all(type(value) in (int, float) for value in values):
            numbers.append(Atom(expression=f"event[{key!r}]", values=tuple(values)))
        elif key in differing and all(type(value) is str for value in values):
            texts[key] = tuple(values)
        if key in differing and (key in texts or _numeric(values)):
            varied[key] = _one_type(values)
    if promised := [key for key in differing if key not in set(vary)]:
        options = " ".join(f"--vary {shlex.quote(key)}" for key in promised)
        raise NotSliced(Cause.VARY_NOT_PROMISED, fields=_fields(promised), options=options)
    if other := [key for key in differing if key not in varied]:
        raise NotSliced(Cause.FIELD_NOT_SCALAR, fields=_fields(other))
    return EventFields(equal=equal, varied=varied, texts=texts, numbers=tuple(numbers))


def _fields(keys: Iterable[str]) -> str:
    return ", ".join(f'event["{key}"]' for key in keys)


def refuse_unused(fields: EventFields, files: Iterable[ProgramFile], expressions: Iterable[str]) -> None:
    """Raise NotSliced where a field differs between the traced events and neither a path nor a number is made of it.

    What init makes of it may then be the same in the traces by chance: a ratio of two fields, say.
    """
    used = {part[1] for file in files for part in file.path if not isinstance(part, str)}
    used |= {key for key in fields.varied for expression in expressions if f"event[{key!r}]" in expression}
    if unused := [key for key in fields.varied if key not in used]:
        raise NotSliced(Cause.FIELD_WITHOUT_USE, fields=_fields(unused))


class RequestFiles:
    """The files that init opened by a name that the event gives, for each event one of each."""

    def __init__(self, inits: "Sequence[EventInit]", fields: EventFields, folder: str) -> None:
        self._inits = inits
        self._texts = fields.texts
        self._folder = Path(folder)
        # by their loaders; what was mapped as plain bytes has keys of another form
        self._loaded = {
            self._folder / record.file
            for init in inits
            for record in init.records
            if isinstance(record, TapeRead) and not record.key.startswith("@")
        }
        self._files: dict[tuple[Any, ...], ProgramFile] = {}
        self._paths: dict[str, list[Path]] = {}  # of JSON files, by their names
        self._numbers: list[Atom] = []
        self._find_others()

    def files(self, expressions: Sequence[str]) -> tuple[ProgramFile, ...]:
        """All of them, for a program with these expressions: numbers of a JSON file that none of them takes must be as traced."""
        return tuple(self._settled(file, expressions) for file in self._files.values())

    def _settled(self, file: ProgramFile, expressions: Sequence[str]) -> ProgramFile:
        if file.kind != "json":
            return file
        text = " ".join(expressions)
        free = {key: kind for key, kind in file.free.items() if f"files[{file.name!r}][{key!r}]" in text}
        return msgspec.structs.replace(file, free=free, rest=_digests(self._paths[file.name], "json", free))

    def numbers(self) -> list[Atom]:
        """The numbers in JSON files."""
        return list(self._numbers)

    def of_read(self, row: Sequence[TapeRead]) -> str:
        """The name of the file that a tensor is read from."""
        parts = path_parts([read.file for read in row], self._texts)
        if parts is None:
            raise NotSliced(Cause.NOT_EXPLAINED, what=f"the path {row[0].file}")
        file = self._add(parts, [read.file for read in row])
        if file.kind != "torch" and row[0].key not in file.keys:
            raise NotSliced(
                Cause.NOT_IN_A_SCRIPT, what=f"{row[0].key} is read from {row[0].file} in another way than by its key"
            )
        return file.name

    def read_rows(self) -> list[list[TapeRead]]:
        """Each tensor that init read from a file that the event names, for all events, whether a weight needs it or not."""
        columns = [self._request_reads(init) for init in self._inits]
        if len({frozenset(column) for column in columns}) > 1:
            raise NotSliced(Cause.STEPS_DIFFER, what="the tensors that it reads")
        return [[column[place] for column in columns] for place in columns[0]]

    def _request_reads(self, init: "EventInit") -> dict[Any, TapeRead]:
        """By the way to the file, and key."""
        found: dict[Any, TapeRead] = {}
        for record in init.records:
            if isinstance(record, TapeRead) and (named := self._named(record.file)):
                found.setdefault((named[0], record.key, record.operators), record)
        return found

    def _find_others(self) -> None:
        """Files besides those of the weights that the event names.

        `opened` is what the whole trace opened in init; which event a file was opened for, its name says.
        """
        for given in sorted({given for init in self._inits for given in init.opened}):
            if named := self._named(given):
                self._add(*named)
            elif any(bounded(given, value) for values in self._texts.values() for value in values):
                raise NotSliced(Cause.STEPS_DIFFER, what=f"the files that it opens ({given} for one event alone)")

    def _named(self, given: str) -> tuple[tuple[Any, ...], list[str]] | None:
        """A way from the event to the path, where it leads to a path that was opened for every event; and those paths."""
        for key, values in self._texts.items():
            for value in values:
                for before, after in around(given, value):
                    paths = [before + other + after for other in values]
                    if all(path in init.opened for path, init in zip(paths, self._inits, strict=True)):
                        return tuple(part for part in (before, ("event", key), after) if part), paths
        return None

    def _add(self, parts: tuple[Any, ...], given: Sequence[str]) -> ProgramFile:
        if parts not in self._files:
            paths = [self._folder / path for path in given]
            self._files[parts] = self._read(self._name(paths[0]), parts, paths)
        return self._files[parts]

    def _name(self, path: Path) -> str:
        stem = "".join(c if c.isalnum() else "_" for c in path.stem).strip("_").lower()
        known = {file.name for file in self._files.values()}
        return stem if stem.isidentifier() and stem not in known else f"file_{len(self._files)}"

    def _read(self, name: str, parts: tuple[Any, ...], paths: Sequence[Path]) -> ProgramFile:
        """The record of a file that lies at `paths` for the traced events."""
        loaded, suffix = paths[0] in self._loaded, paths[0].suffix
        if suffix == ".json" and (bodies := _mappings(paths)):
            self._paths[name] = list(paths)
            return ProgramFile(name=name, path=parts, kind="json", free=self._varying(name, bodies))
        kind = "other" if not loaded else "safetensors" if suffix == ".safetensors" else "torch"
        try:
            rest = _digests(paths, kind)
            keys = {tuple(sorted(read_header(path))) for path in paths} if kind == "safetensors" else {()}
            for path in paths if kind == "torch" else ():
                import torch

                torch.load(path, map_location="meta", weights_only=True)
        except Exception as error:  # whatever a file's objects raise, the script could not read it either
            raise NotSliced(Cause.NOT_IN_A_SCRIPT, what=f"it can't read {paths[0].name} by itself ({error})") from error
        if len(keys) > 1 or (kind == "torch" and len(rest) > 1):
            raise NotSliced(Cause.STEPS_DIFFER, what=f"the tensors that {paths[0].name} holds, or what it holds besides them")
        return ProgramFile(name=name, path=parts, kind=kind, keys=keys.pop(), rest=rest)

    def _varying(self, name: str, bodies: Sequence[dict[str, Any]]) -> dict[str, str]:
        """The keys under which all bodies have numbers, not all the same, with their type."""
        found: dict[str, str] = {}
        for key in sorted(set.intersection(*(set(body) for body in bodies))):
            values = tuple(body[key] for body in bodies)
            if _numeric(values):
                atom = Atom(expression=f"files[{name!r}][{key!r}]", values=values)
                self._numbers.append(atom)
                if atom.varies:
                    found[key] = _one_type(values)
        return found


def _numeric(values: Iterable[Any]) -> bool:
    return all(type(value) in (int, float) for value in values)


def _one_type(values: Sequence[Any]) -> str:
    """The JSON type of all values: a whole number is not a fraction, since torch tells them apart."""
    kinds = {type(value) for value in values}
    return {str: "str", int: "int", float: "float"}[kinds.pop()] if len(kinds) == 1 else "number"


def _digests(paths: Sequence[Path], kind: str, free: Iterable[str] = ()) -> tuple[str, ...]:
    return tuple(sorted({content_digest(path, kind, free) for path in paths}))


def _mappings(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What JSON files hold; nothing where one is JSON by its name alone (lines of it, or with comments), or no mapping."""
    try:
        bodies = [read_json(path) for path in paths]
    except (ValueError, RecursionError):
        return []
    return bodies if all(isinstance(body, dict) for body in bodies) else []
