"""Files that the trace names: which of the project's have changed since, and which of the installed ones a start reads ahead."""

import sys
from collections.abc import Iterable
from pathlib import Path

from tidalctl.artifacts.bundle.directory import file_digest
from tidalctl.artifacts.page_cache import SMALL
from tidalctl.artifacts.project import import_folders, place_below
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import FileOpened, Import, SourcesRead


def again(trace: Trace) -> str:
    """Return the hint for a trace that is out of date."""
    function = trace.header.function
    return f"trace again: tidalctl trace {Path(trace.header.root, function.source)}:{function.handler} …"


def changed_since(trace: Trace) -> str | None:
    """A module or a data file of the project that is no longer what was traced, by its path in it. What is gone is none."""
    root = Path(trace.header.root)
    for record in (*trace.of(Import), *trace.of(FileOpened)):
        path = Path(record.file if isinstance(record, Import) else record.path)
        if not record.sha256 or not path.is_file():
            continue
        status = path.stat()
        same = isinstance(record, FileOpened) and (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns)
        if not same and file_digest(path) != record.sha256:
            return path.relative_to(root).as_posix()
    return None


def readahead_of(trace: Trace, code_root: str, packed: bool, scanned: Iterable[str] = ()) -> tuple[str, ...]:
    """The files that imports read, relative to a sys.path entry: small ones that are opened as such (a distribution's metadata),
    shared libraries, what is looked through, bytecode.

    Bytecode only where no code pack holds it; no source of the folders in which what is found is `import_cache`.
    """
    places = import_folders()
    opened = [
        record for record in trace.of(FileOpened) if not record.mapped and record.phase != "init" and record.size <= SMALL
    ]
    small = [name for record in opened if (name := place_below(Path(record.path), places))]
    libraries = _libraries(trace, places)
    sources = [name for record in trace.of(SourcesRead) for file in record.files if (name := place_below(Path(file), places))]
    within = tuple(f"{folder}/" for folder in scanned)
    sources = [name for name in sources if name.endswith(".pyc") or not name.startswith(within)]
    modules = []
    for module in trace.of(Import):
        if module.file.startswith(code_root) or (packed and module.plain):
            continue
        if name := place_below(Path(module.file), places):
            modules.append(_cached(name))
    return tuple(sorted({*small, *libraries, *sources, *modules}))


def touched_of(trace: Trace) -> dict[str, tuple[tuple[int, int], ...]]:
    """What of each shared library a start touches, offset and length, by the library's name in `readahead_of`."""
    return {name: record.touched for name, record in sorted(_libraries(trace, import_folders()).items()) if record.touched}


def _libraries(trace: Trace, places: Iterable[Path]) -> dict[str, FileOpened]:
    """Mapped shared libraries, by their names relative to a sys.path entry."""
    found = {place_below(Path(record.path), places): record for record in trace.of(FileOpened) if record.mapped}
    return {name: record for name, record in found.items() if ".so" in name}


def _cached(name: str) -> str:
    """The bytecode that an import of a source file reads."""
    path = Path(name)
    if path.suffix != ".py":
        return name
    return (path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc").as_posix()
