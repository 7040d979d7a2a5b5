"""What imports work out anew each time, worked out here: bytecode of texts, automata of patterns, and what a scan found in a folder."""

import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from re import _compiler  # type: ignore[attr-defined]
from types import SimpleNamespace
from typing import Any, NamedTuple

from tidalctl.artifacts.bundle.code_pack import file_of
from tidalctl.artifacts.bundle.import_cache import (
    MODES,
    SCANS,
    Automaton,
    FolderContent,
    Scan,
    encode_import_cache,
    from_plain,
    read_contents,
    scanned_folder,
)
from tidalctl.artifacts.bundle.manifest import IMPORT_CACHE
from tidalctl.artifacts.distributions import Distribution
from tidalctl.artifacts.records import digest_json
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import Import, ImportWork
from tidalctl.compiler.code.code_pack import steady_bytes
from tidalctl.compiler.code.installed_records import InstalledRecords

_TEXT = "<string>"  # what the builtins call a text that they compile


class ScannedFolder(NamedTuple):
    """A folder that the import cache hangs on: its name below an entry of sys.path, which ends in "/", and its content."""

    entry: str
    name: str
    content: FolderContent


def write_import_cache(trace: Trace, partial: Path) -> list[ScannedFolder]:
    """Write the import cache into the bundle, where it is not there yet. Returns what it hangs on."""
    work = trace.one(ImportWork) or ImportWork()
    here = _places(trace)
    patterns = [
        (text.encode("latin-1") if is_bytes else text, flags)
        for text, is_bytes, flags in work.patterns
        if not _names(text, here)
    ]
    scanned: dict[str, ScannedFolder] = {}
    scans = list(_scans(trace, work, scanned))
    if not (partial / IMPORT_CACHE).exists():
        texts = {
            (mode, text): code
            for mode, text in work.texts
            if not _names(text, here) and (code := _bytecode(mode, text)) is not None
        }
        automata = {key: found for key in patterns if (found := automaton(*key)) is not None}
        if texts or automata or scans:
            (partial / IMPORT_CACHE).write_bytes(
                encode_import_cache(texts, automata, scans, {name: folder.content for name, folder in scanned.items()})
            )
    return list(scanned.values())


def _places(trace: Trace) -> frozenset[str]:
    """Folders of this machine, whose names a bundle keeps to its provenance."""
    found = {trace.header.root, trace.header.cwd, sys.prefix, sys.base_prefix}
    return frozenset(place for place in found if len(place) > 1)


def _names(text: str, places: Iterable[str]) -> bool:
    """Whether a text names one of them; a pattern may do so with escapes (torch makes one of its files' names)."""
    plain = text.replace("\\", "")
    return any(place in plain for place in places)


def _bytecode(mode: str, text: str) -> bytes | None:
    """None where compiling it says something, which every process is to hear."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            code = compile(text, _TEXT, mode, dont_inherit=True) if mode in MODES else None
    except (SyntaxError, ValueError, Warning, RecursionError):
        return None
    return None if code is None else steady_bytes(code, _TEXT)


def automaton(pattern: str | bytes, flags: int) -> Automaton | None:
    """What `re` makes of a pattern; None where it says something, or where that hangs on the locale."""
    if flags & re.DEBUG:
        return None
    taken: list[Any] = []
    unwatched = _compiler._sre
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _compiler._sre = SimpleNamespace(**{**vars(unwatched), "compile": lambda *given: taken.append(given)})
            _compiler.compile(pattern, flags)
    except (re.error, ValueError, OverflowError, RecursionError, Warning):
        return None
    finally:
        _compiler._sre = unwatched
    _, found, code, groups, names, indices = taken[0]
    if found & re.LOCALE:
        return None
    made = (int(found), [int(item) for item in code], groups, dict(names), tuple(indices))
    return made if unwatched.compile(pattern, *made) == re.compile(pattern, flags) else None


def _scans(trace: Trace, work: ImportWork, scanned: dict[str, ScannedFolder]) -> Iterator[Scan]:
    """Scans of folders that are as they were when they were scanned; the folders are put into `scanned`, by their names."""
    records = InstalledRecords()
    files = {record.name: record.file for record in trace.of(Import) if record.plain}
    for scan in work.scans:
        entry = files.get(scan.module, "").removesuffix(file_of(scan.module, package=False))
        if SCANS.get(scan.module) != scan.function or not entry.endswith("/") or not scan.path.startswith(entry):
            continue
        folder = scanned_folder(scan.path)
        name = folder.removeprefix(entry)
        try:
            contents = read_contents(folder)
            made = from_plain(scan.made)
        except (OSError, ValueError, TypeError, RecursionError):
            continue
        if digest_json(contents) == scan.contents:
            content: dict[Distribution | None, dict[str, tuple[int, str]]] = {}
            for below, known in contents.items():
                content.setdefault(records.distribution(entry, f"{name}/{below}"), {})[below] = known
            scanned[name] = ScannedFolder(entry, name, content)
            yield Scan(scan.module, scan.function, scan.path.removeprefix(entry), scan.pathlike, made, name)
