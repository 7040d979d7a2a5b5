"""What of the project goes into the bundle: its own source, found through imports, and the data files that it opens."""

import ast
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tidalctl.artifacts.bundle.directory import file_digest
from tidalctl.artifacts.page_cache import SMALL
from tidalctl.artifacts.project import import_folders, installed, is_own, place_below
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import FileOpened, Import, SourcesRead
from tidalctl.compiler.dynamic.answers import texts_in

_SYSTEM = ("/usr/", "/lib/", "/lib64/", "/etc/", "/proc/", "/sys/", "/dev/", "/tmp/torchinductor")


SIBLINGS_SIZE = 64 * 2**20  # bytes of files that come along because one like them was opened


class Shipment(Record, frozen=True):
    """Files by their path in the project, and what could not come along, each with its reason."""

    sources: tuple[str, ...]
    data: tuple[str, ...]
    warnings: tuple[str, ...]


def plan_shipment(trace: Trace) -> Shipment:
    """The project's modules that were imported or that those name in an import statement, and data opened outside init."""
    root = Path(trace.header.root)
    imported = [Path(r.file) for r in trace.of(Import) if r.file.endswith(".py") and is_own(r.file, str(root))]
    sources = {path.relative_to(root).as_posix() for path in imported if path.is_file()} | {trace.header.function.source}
    sources |= _whole_packages(root, sources)
    waiting = sorted(sources)
    while waiting:
        for name in _named_by(root, waiting.pop()):
            if name not in sources:
                sources.add(name)
                waiting.append(name)
    opened = [record for record in trace.of(FileOpened) if not _of_a_request(record.given, trace)]
    data, warnings = _data(opened, root, sources)
    own = str(Path(__file__).parents[2])
    for record in trace.of(Import):
        elsewhere = record.file.startswith("/") and not record.file.startswith((*installed(), *_SYSTEM, own, str(root)))
        if record.file.endswith(".py") and elsewhere:  # a name that is not absolute (torch.ops has one) is no file's
            warnings.add(f"the module {record.name} lies outside the project: the bundle imports {record.file} where it is")
    return Shipment(sources=tuple(sorted(sources)), data=tuple(sorted(data)), warnings=tuple(sorted(warnings)))


def _whole_packages(root: Path, sources: set[str]) -> set[str]:
    """Every module of the packages of which one was imported: which other is, may depend on the event."""
    folders = {root / source for source in sources}
    tops = {path.relative_to(root).parts[0] for path in folders if len(path.relative_to(root).parts) > 1}
    return {
        path.relative_to(root).as_posix()
        for top in tops
        for path in (root / top).rglob("*.py")
        if is_own(str(path), str(root)) and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }


def _named_by(root: Path, source: str) -> Iterator[str]:
    """Files of the project that a source file names in an import statement, wherever it stands: a branch not taken, too."""
    try:
        tree = ast.parse((root / source).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    package = Path(source).parent.parts
    for node in ast.walk(tree):
        names: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - (node.level - 1)] if node.level else ()
            base = (*base, *(node.module.split(".") if node.module else ()))
            names = [base, *((*base, alias.name) for alias in node.names)]
        for parts in names:
            for depth in range(1, len(parts) + 1):
                stem = Path(*parts[:depth])
                for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
                    if (root / candidate).is_file():
                        yield candidate.as_posix()


def _of_a_request(given: str, trace: Trace) -> bool:
    """Whether an event gave a file's absolute path, or its folder's: a run opens it there, wherever the bundle lies."""
    texts = (text.rstrip("/") for event in trace.header.events for text in texts_in(json.loads(event.text)))
    return any(text.startswith("/") and (given == text or given.startswith(f"{text}/")) for text in texts)


def _data(opened: Iterable[FileOpened], root: Path, sources: set[str]) -> tuple[set[str], set[str]]:
    """Files that the module or its handler opens again in every run. What init reads is in the snapshot already."""
    data: set[str] = set()
    warnings: set[str] = set()
    for record in opened:
        path = Path(record.path)
        if record.mapped or record.phase == "init" or record.path.startswith((*installed(), *_SYSTEM)):
            continue
        if not is_own(str(path), str(root)):
            warnings.add(f"{path} lies outside the project: the bundle reads it where it is")
            continue
        if not path.is_file():
            warnings.add(f"{path} is gone or is no regular file, and can't be shipped")
            continue
        name = path.relative_to(root).as_posix()
        if name in sources:
            continue
        data.add(name)
        data |= _siblings(path, root)
        if not Path(record.given).is_absolute():
            warnings.add(f"{name} is opened relative to the working directory: run the bundle where it is found")
    return data, warnings


def _siblings(path: Path, root: Path) -> set[str]:
    """Files of the same kind in the same folder: which of them is opened, may depend on the event."""
    found = [p for p in path.parent.glob(f"*{path.suffix}") if p.is_file() and path.suffix and p.suffix != ".py"]
    if sum(p.stat().st_size for p in found) > SIBLINGS_SIZE:
        return set()
    return {p.relative_to(root).as_posix() for p in found}


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


def copy_shipment(shipment: Shipment, root: Path, code: Path) -> None:
    for name in (*shipment.sources, *shipment.data):
        target = code / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target)


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
