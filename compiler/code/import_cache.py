"""What imports work out anew each time, worked out here: bytecode of texts, automata of patterns, and what a scan found in a folder."""

import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from re import _compiler  # type: ignore[attr-defined]
from types import SimpleNamespace
from typing import Any

from tidalctl.artifacts.bundle.code_pack import file_of
from tidalctl.artifacts.bundle.import_cache import (
    MODES,
    SCANS,
    Automaton,
    Scan,
    Stamp,
    encode_recalled,
    from_plain,
    read_stamp,
    scanned_folder,
)
from tidalctl.artifacts.bundle.manifest import RECALL
from tidalctl.artifacts.records import digest_json
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import Import, ImportWork
from tidalctl.compiler.code.code_pack import steady_bytes

_TEXT = "<string>"  # what the builtins call a text that they compile


def write_recall(trace: Trace, partial: Path) -> dict[str, Stamp]:
    """Write what a start recalls into the bundle, where it is not there yet. Returns the stamps of the folders that it hangs on."""
    work = trace.one(ImportWork) or ImportWork()
    here = _places(trace)
    patterns = [
        (text.encode("latin-1") if is_bytes else text, flags)
        for text, is_bytes, flags in work.patterns
        if not _names(text, here)
    ]
    stamps: dict[str, Stamp] = {}
    scans = list(_scans(trace, work, stamps))
    if not (partial / RECALL).exists():
        texts = {
            (mode, text): code
            for mode, text in work.texts
            if not _names(text, here) and (code := _bytecode(mode, text)) is not None
        }
        automata = {key: found for key in patterns if (found := automaton(*key)) is not None}
        if texts or automata or scans:
            (partial / RECALL).write_bytes(encode_recalled(texts, automata, scans))
    return stamps


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


def _scans(trace: Trace, work: ImportWork, stamps: dict[str, Stamp]) -> Iterator[Scan]:
    """Scans of folders that are as they were when they were scanned; their stamps, by the folders' names, are put into `stamps`."""
    files = {record.name: record.file for record in trace.of(Import) if record.plain}
    for scan in work.scans:
        entry = files.get(scan.module, "").removesuffix(file_of(scan.module, package=False))
        if SCANS.get(scan.module) != scan.function or not entry.endswith("/") or not scan.path.startswith(entry):
            continue
        folder = scanned_folder(scan.path)
        try:
            stamp = read_stamp(folder)
            made = from_plain(scan.made)
        except (OSError, ValueError, TypeError, RecursionError):
            continue
        if digest_json(stamp) == scan.stamp:
            stamps[folder.removeprefix(entry)] = stamp
            yield Scan(scan.module, scan.function, scan.path.removeprefix(entry), scan.pathlike, made)
