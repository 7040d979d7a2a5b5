"""What belongs to the request: the event's fields that init read, and the files that those name."""

import functools
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tidalctl.artifacts.program import ProgramFile
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.tape import TapeRead
from tidalctl.compiler.expressions import Atom, around, bounded, filled, path_parts
from tidalctl.compiler.script_template import READ_TORCH, REST
from tidalctl.compiler.slicing import NotSliced
from tidalctl.eventprobe import ABSENT, digest_value

if TYPE_CHECKING:
    from tidalctl.compiler.program import EventInit

_TYPES = {str: "str", int: "number", float: "number", bool: "bool", list: "list", dict: "dict", type(None): "null"}


# PEFT writes these sets as lists, in whatever order the hash seed gives
SETS = {"adapter_config.json": ("target_modules", "exclude_modules")}


class EventFields(Record, frozen=True):
    """The fields that init read. `texts` and `numbers` are those that may be anything, with the traced values."""

    equal: dict[str, str]
    free: dict[str, str]
    among: dict[str, tuple[str, ...]]
    texts: dict[str, tuple[str, ...]]
    numbers: tuple[Atom, ...]


def event_fields(inits: "Sequence[EventInit]") -> EventFields:
    """Fields that all traced events agree in must stay so; texts and numbers that differ, and that nobody compared, are free."""
    equal: dict[str, str] = {}
    free: dict[str, str] = {}
    among: dict[str, tuple[str, ...]] = {}
    texts: dict[str, tuple[str, ...]] = {}
    numbers: list[Atom] = []
    compared = {key for init in inits for key in init.call.event_compared}
    for key in sorted({key for init in inits for key in init.call.event_reads}):
        values: list[Any] = [init.event.get(key) for init in inits]
        digests = [digest_value([init.event[key]] if key in init.event else ABSENT) for init in inits]
        kinds = {_TYPES[type(value)] for value in values}
        if len(set(digests)) == 1:
            equal[key] = digests[0]
            if all(type(value) in (int, float) for value in values):
                numbers.append(Atom(expression=f"event[{key!r}]", values=tuple(values)))
        elif key in compared or len(kinds) > 1 or not _extrapolated(values):
            among[key] = tuple(sorted(set(digests)))
            if kinds == {"number"}:
                numbers.append(Atom(expression=f"event[{key!r}]", values=tuple(values)))
        else:
            free[key] = _one_type(values)
            if free[key] == "str":
                texts[key] = tuple(str(value) for value in values)
            else:
                numbers.append(Atom(expression=f"event[{key!r}]", values=tuple(values)))
    if len(among) > 1:
        raise NotSliced(f"init chooses by {len(among)} fields of the event at once ({', '.join(among)})")
    return EventFields(equal=equal, free=free, among=among, texts=texts, numbers=tuple(numbers))


class RequestFiles:
    """The files that init opened by a name that the event gives, for each event one of each."""

    def __init__(self, inits: "Sequence[EventInit]", fields: EventFields, folder: str) -> None:
        self._inits = inits
        self._texts = fields.texts
        self._compared = {key for init in inits for key in init.call.numbers_compared}
        self._folder = Path(folder)
        # by their loaders; what was mapped as plain bytes has keys of another form
        self._loaded = {
            self._folder / record.file
            for init in inits
            for record in init.records
            if isinstance(record, TapeRead) and not record.key.startswith("@")
        }
        self._files: dict[tuple[Any, ...], ProgramFile] = {}
        self._bodies: dict[str, list[dict[str, Any]]] = {}  # of JSON files, by their names
        self._numbers: list[Atom] = []
        self._find_others()
        self._find_probed()
        self._refuse_beyond()

    def files(self, expressions: Sequence[str]) -> tuple[ProgramFile, ...]:
        """All of them, for a program with these expressions: what they take from a JSON file, and what the rest of it must be."""
        return tuple(self._settled(file, expressions) for file in self._files.values())

    def _settled(self, file: ProgramFile, expressions: Sequence[str]) -> ProgramFile:
        """A whole number that no expression takes may index a list, of which nobody sees anything, and is as traced."""
        if file.kind != "json":
            return file
        bodies = self._bodies[file.name]
        free = {key: kind for key, kind in file.free.items() if kind == "float" or _takes(expressions, file.name, key)}
        return msgspec.structs.replace(
            file,
            free=free,
            rest=tuple(sorted({_rest_digest(body, free, file.unordered) for body in bodies})),
            orders=tuple(sorted({tuple(body) for body in bodies})) if free else (),
        )

    def forms(self) -> dict[str, tuple[str, ...]]:
        """The forms that the texts have which paths are made of."""
        form = _script_functions()["form"]
        keys = {part[1] for path in self._files for part in path if not isinstance(part, str)}
        return {key: tuple(sorted({form(text) for text in self._texts[key]})) for key in sorted(keys)}

    def numbers(self) -> list[Atom]:
        """The numbers in JSON files."""
        return list(self._numbers)

    def of_read(self, row: Sequence[TapeRead]) -> str:
        """The name of the file that a tensor is read from."""
        parts = path_parts([read.file for read in row], self._texts)
        if parts is None:
            raise NotSliced(f"nothing in the event gives the path {row[0].file}")
        return self._add(parts, self._kind(row[0].file)).name

    def _kind(self, given: str) -> str:
        """A file that no loader of tensors read may have been read in any way: then all of it must be as traced."""
        suffix = Path(given).suffix
        if suffix == ".json":
            return "json"
        loaded = self._folder / given in self._loaded
        return "other" if not loaded else "safetensors" if suffix == ".safetensors" else "torch"

    def read_rows(self) -> list[list[TapeRead]]:
        """Each tensor that init read from a file that the event names, for all events, whether a weight needs it or not."""
        columns = [self._request_reads(init) for init in self._inits]
        if len({frozenset(column) for column in columns}) > 1:
            raise NotSliced("init reads other tensors of the event's files for one event than for another")
        return [[column[place] for column in columns] for place in columns[0]]

    def _request_reads(self, init: "EventInit") -> dict[Any, TapeRead]:
        """By the way to the file, and key."""
        found: dict[Any, TapeRead] = {}
        for record in init.records:
            if isinstance(record, TapeRead) and (parts := self._named(record.file)):
                found.setdefault((parts, record.key, record.operators), record)
        return found

    def _find_others(self) -> None:
        """Files besides those of the weights that the event names, JSON ones and any others.

        `opened` is what the whole trace opened in init; which event a file was opened for, its name says.
        """
        for given in sorted({given for init in self._inits for given in init.opened}):
            parts = self._named(given)
            if parts is not None:
                self._add(parts, self._kind(given))
            elif parts is None and any(bounded(given, value) for values in self._texts.values() for value in values):
                raise NotSliced(f"init opens {given} for one event, and no such file for another")

    def _find_probed(self) -> None:
        """Paths that init only asked about: each must be there, or not, as it was in the traces."""
        asked = [set(init.call.probed) | self._read_files(init) for init in self._inits]
        for given, there in self._inits[0].call.probed.items():
            parts = self._named(given, asked)
            if parts is None and any(bounded(given, values[0]) for values in self._texts.values()):
                raise NotSliced(f"init looks for {given} for one event, and for no such path for another")
            if parts is None or all(filled(parts, init.event) in self._read_files(init) for init in self._inits):
                continue  # it does not come from the event, or has to be there anyway
            if any(init.call.probed.get(filled(parts, init.event)) is not there for init in self._inits):
                raise NotSliced(f"init looks for {given} for one event, and finds otherwise for another")
            self._add(parts, "present" if there else "absent")

    def _refuse_beyond(self) -> None:
        """What came of these for another event, nobody can check: a process's output, a file's size or time, a module's code."""
        noted = [init.call.beyond for init in self._inits if init.call.beyond is not None]
        if len(noted) < len(self._inits):
            raise NotSliced("an older tidalctl made the trace and did not note to whom init hands paths: trace again")
        texts = [value for values in self._texts.values() for value in values]
        for beyond in noted:
            for given, who in beyond.items():
                by_chance = who == "Python"  # a package may be called as the event's text is
                if self._named(given, [set(other) for other in noted]) or (
                    not by_chance and any(bounded(given, text) for text in texts)
                ):
                    raise NotSliced(f"init hands {given}, which hangs on the event, to {who}")

    @staticmethod
    def _read_files(init: "EventInit") -> set[str]:
        return {*init.opened, *(record.file for record in init.records if isinstance(record, TapeRead))}

    def _named(self, given: str, seen: Sequence[set[str]] = ()) -> tuple[Any, ...] | None:
        """A way to the path from the event, by which every event has a path that was opened, or is in its part of `seen`."""
        known = seen or [set(init.opened) for init in self._inits]
        for key, values in self._texts.items():
            for value in values:
                for before, after in around(given, value):
                    if all(before + other + after in paths for other, paths in zip(values, known, strict=True)):
                        return tuple(part for part in (before, ("event", key), after) if part)
        return None

    def _paths(self, parts: tuple[Any, ...]) -> list[Path]:
        return [self._folder / filled(parts, init.event) for init in self._inits]

    def _add(self, parts: tuple[Any, ...], kind: str) -> ProgramFile:
        if parts in self._files:
            return self._files[parts]
        paths = self._paths(parts)
        stem = "".join(c if c.isalnum() else "_" for c in paths[0].stem).strip("_").lower() or "file"
        name = (
            stem
            if stem.isidentifier() and stem not in {file.name for file in self._files.values()}
            else f"file_{len(self._files)}"
        )
        keys: tuple[str, ...] = ()
        free: dict[str, str] = {}
        unordered: tuple[str, ...] = ()
        rest: set[str] = set()
        if kind == "safetensors":
            found = [_safetensors_keys(path) for path in paths]
            if len(set(found)) > 1:
                raise NotSliced(f"{paths[0].name} holds other tensors for one event than for another")
            keys = found[0]
            rest = {_metadata_digest(path) for path in paths}
        elif kind == "json":
            if bodies := self._mappings(paths):
                self._bodies[name] = bodies
                free = self._free_numbers(name, bodies)
                unordered = SETS.get(paths[0].name, ())
            else:
                kind = "other"
        elif kind == "torch":
            rest = {_torch_digest(path) for path in paths}
        if kind == "other":
            rest = {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        made = ProgramFile(
            name=name,
            path=parts,
            kind=kind,
            keys=keys,
            free=free,
            unordered=unordered,
            rest=tuple(sorted(rest)),
            beside=self._beside(parts, paths),
        )
        self._files[parts] = made
        return made

    def _mappings(self, paths: Sequence[Path]) -> list[dict[str, Any]]:
        """What JSON files hold; nothing where one is JSON by its name alone (lines of it, or with comments), or was parsed unseen."""
        if any(os.path.abspath(path) not in init.call.parsed for path, init in zip(paths, self._inits, strict=True)):
            return []
        try:
            bodies = [json.loads(path.read_bytes()) for path in paths]
        except (ValueError, RecursionError):
            return []
        return bodies if all(isinstance(body, dict) for body in bodies) else []

    def _free_numbers(self, name: str, bodies: list[dict[str, Any]]) -> dict[str, str]:
        """The keys under which all bodies have numbers, not all the same, and that nobody compared; with their type."""
        free: dict[str, str] = {}
        for key in sorted(set.intersection(*(set(body) for body in bodies))):
            values = tuple(body[key] for body in bodies)
            if all(type(value) in (int, float) for value in values):
                atom = Atom(expression=f"{name}[{key!r}]", values=values)
                self._numbers.append(atom)
                if atom.varies and key not in self._compared:
                    free[key] = _one_type(values)
        return free

    def _beside(self, parts: tuple[Any, ...], paths: list[Path]) -> tuple[tuple[str, ...], ...]:
        """What lies in the folders, where the event names the folder: an init may look for a file that is not there."""
        last = parts[-1]
        if not (isinstance(last, str) and last.startswith("/") and last.count("/") == 1):
            return ()
        return tuple(sorted({tuple(sorted(path.name for path in where.parent.iterdir())) for where in paths}))


def _extrapolated(values: Sequence[Any]) -> bool:
    """Texts, and fractions. A whole number may index a list or end a range, of which nobody sees anything."""
    return all(type(value) is str for value in values) or any(type(value) is float for value in values)


def _one_type(values: Sequence[Any]) -> str:
    """The JSON type of all values: a whole number is not a fraction, since torch tells them apart."""
    kinds = {type(value) for value in values}
    return {str: "str", int: "int", float: "float"}[kinds.pop()] if len(kinds) == 1 else "number"


def choices(files: Sequence[ProgramFile]) -> list[str]:
    """What of the files may be as it was for one traced event or as for another, in words."""
    kinds = (("what {} holds", "rest"), ("the order of keys in {}", "orders"), ("what lies beside {}", "beside"))
    found = {what.format(_said(file)): len(getattr(file, kind)) > 1 for file in files for what, kind in kinds}
    return [what for what, several in found.items() if several]


def _said(file: ProgramFile) -> str:
    """Its path, without the traced texts."""
    return "".join(part if isinstance(part, str) else "…" for part in file.path)


def _takes(expressions: Sequence[str], name: str, key: str) -> bool:
    number = re.compile(rf"(?<!\w){re.escape(f'{name}[{key!r}]')}")
    return any(number.search(expression) for expression in expressions)


def _rest_digest(body: dict[str, Any], free: dict[str, str], unordered: tuple[str, ...]) -> str:
    """Of all of a JSON file but the numbers that may differ, in the file's order; sets in one. dynamic_init.py computes the same."""
    rest = {key: value for key, value in body.items() if key not in free}
    for key in unordered:
        if isinstance(rest.get(key), list):
            rest[key] = sorted(rest[key], key=json.dumps)
    return hashlib.sha256(json.dumps(rest, separators=(",", ":")).encode()).hexdigest()


def _safetensors_header(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise NotSliced(f"{path.name} is no safetensors file")
        header: dict[str, Any] = json.loads(file.read(length))
        return header


def _safetensors_keys(path: Path) -> tuple[str, ...]:
    return tuple(sorted(_safetensors_header(path).keys() - {"__metadata__"}))


def _metadata_digest(path: Path) -> str:
    """Of the metadata, and of the order in which the tensors lie, which is the one that load_file gives them in."""
    return str(_script_functions()["metadata_digest"](path))


def _torch_digest(path: Path) -> str:
    functions = _script_functions()
    try:
        return str(functions["torch_digest"](functions["load_torch"](path)))
    except Exception as error:  # whatever a file's objects raise, the script could not read it either
        raise NotSliced(f"{path.name} can't be read by torch.load(…, weights_only=True)") from error


@functools.cache
def _script_functions() -> dict[str, Any]:
    """Of every script alike, so that compile computes what a start compares with."""
    found: dict[str, Any] = {"hashlib": hashlib, "json": json, "os": os}
    exec(compile(REST + READ_TORCH, "dynamic_init.py", "exec", dont_inherit=True), found)
    return found
