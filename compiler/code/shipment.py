"""What of the project goes into the bundle: its own source, found through imports, and data that it opened or asked about."""

import ast
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec

from tidalctl.artifacts.project import installed, is_own
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import FileOpened, Import, PathAsked
from tidalctl.compiler.code.secrets import looks_secret
from tidalctl.compiler.traced_files import SYSTEM, event_texts, named_by_events, phases_of_use
from tidalctl.report.terminal import size_text

IGNORE_FILE = ".tidalignore"
CHECKPOINT = 64 * 2**20  # bytes; what only init reads and is larger is shipped where a start needs it


class ShippingRules(Record, frozen=True):
    """What the user says of files: globs relative to the project, and whether checkpoints that only init reads are shipped, too."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    checkpoint: bool = False


class Shipment(Record, frozen=True):
    """Files and folders by their path in the project, and what stays behind. `secrets` and `checkpoints` were read in the trace."""

    sources: tuple[str, ...]
    data: tuple[str, ...]
    folders: tuple[str, ...]  # that were asked about: they are there in the bundle, too, were they empty
    secrets: tuple[str, ...]
    checkpoints: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def plan_shipment(trace: Trace, rules: ShippingRules) -> Shipment:
    """Plan what is shipped: modules that were imported or that those name in an import statement, and data that the trace saw used."""
    root = Path(trace.header.root)
    sources = _sources(trace, root)
    data, folders, warnings = _used(trace, root, sources)
    data |= _included(root, rules.include) - sources
    for name in sorted(name for name in data | folders if not name.isprintable()):
        warnings.add(f"{name!a} is not shipped: its name is no text")
    data, folders = ({name for name in names if name.isprintable()} for names in (data, folders))
    ignored = _patterns(root, rules.exclude)
    chosen = {name for name in data if not ignored.match_file(name)}
    explicit = GitIgnoreSpec.from_lines(rules.include)
    secrets = {name for name in chosen if not explicit.match_file(name) and looks_secret(name, root)}
    shipped = chosen - secrets
    only_init = _only_init(trace, root)
    large = {name for name in shipped & only_init if (root / name).stat().st_size > CHECKPOINT}
    checkpoints = set() if rules.checkpoint else {name for name in large if not explicit.match_file(name)}
    for name in sorted(secrets):
        warnings.add(
            f"{name} looks like a secret and is not shipped: the function reads it where it runs; --include {name} ships it"
        )
    return Shipment(
        sources=tuple(sorted(sources)),
        data=tuple(sorted(shipped - checkpoints)),
        folders=tuple(sorted(folders)),
        secrets=tuple(sorted(secrets)),
        checkpoints=tuple(sorted(checkpoints)),
        notes=tuple(_notes(trace, root, shipped - checkpoints, checkpoints)),
        warnings=tuple(sorted(warnings)),
    )


def copy_shipment(shipment: Shipment, root: Path, code: Path) -> None:
    for name in shipment.folders:
        (code / name).mkdir(parents=True, exist_ok=True)
    copy_files((*shipment.sources, *shipment.data), root, code)


def copy_files(names: Sequence[str], root: Path, code: Path) -> None:
    for name in names:
        target = code / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target)


# -- source


def _sources(trace: Trace, root: Path) -> set[str]:
    imported = [Path(r.file) for r in trace.of(Import) if r.file.endswith(".py") and is_own(r.file, str(root))]
    sources = {path.relative_to(root).as_posix() for path in imported if path.is_file()} | {trace.header.function.source}
    sources |= _whole_packages(root, sources)
    waiting = sorted(sources)
    while waiting:
        for name in _named_by(root, waiting.pop()):
            if name not in sources:
                sources.add(name)
                waiting.append(name)
    return sources


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


# -- data


def _used(trace: Trace, root: Path, sources: set[str]) -> tuple[set[str], set[str], set[str]]:
    """Return files of the project that were opened, asked about or listed, folders that were, and warnings of others.

    What was not there when it was first asked about, or what init wrote, is not shipped: the program makes it itself.
    """
    data: set[str] = set()
    folders: set[str] = set()
    warnings: set[str] = set()
    asked = [record for record in trace.of(PathAsked) if record.path == str(root) or is_own(record.path, str(root))]
    of_an_event = named_by_events(trace)
    made = {record.path for record in asked if not record.found}
    made |= {record.path for record in trace.of(FileOpened) if record.written is not None}
    for record in trace.of(FileOpened):
        path = Path(record.path)
        if record.mapped or record.path.startswith((*installed(), *SYSTEM)) or of_an_event(record):
            continue
        if record.path in made or not is_own(str(path), str(root)):
            continue
        if not path.is_file():
            if record.phase != "init":
                warnings.add(f"{path} is gone or is no regular file, and can't be shipped")
        else:
            data.add(path.relative_to(root).as_posix())
            if not Path(record.given).is_absolute() and record.phase != "init":
                warnings.add(
                    f"{path.relative_to(root)} is opened relative to the working directory: run the bundle where it is found"
                )
    for question in asked:
        path, name = Path(question.path), Path(question.path).relative_to(root).as_posix()
        if question.path in made or of_an_event(question):
            continue
        if path.is_dir():
            folders.add(name)
            if question.kind == "listed":
                files, inner = _listed(path, root)
                data |= files
                folders |= inner
        elif path.is_file():
            data.add(name)
    data = {name for name in data if name not in sources and "__pycache__" not in Path(name).parts}
    return data, {name for name in folders if "__pycache__" not in Path(name).parts}, warnings


def _listed(folder: Path, root: Path) -> tuple[set[str], set[str]]:
    """Return files and folders that a listing of a folder shows, without our own artifacts and what is installed there."""
    found: tuple[set[str], set[str]] = (set(), set())
    for path in folder.iterdir():
        name = path.relative_to(root).as_posix()
        if is_own(str(path), str(root)) and not path.name.endswith((".trace", ".events", ".bundle", ".partial", ".pyc")):
            if path.is_file():
                found[0].add(name)
            elif path.is_dir() and not path.name.startswith(".") and path not in (Path(sys.prefix), *map(Path, installed())):
                found[1].add(name)
    return found


def _only_init(trace: Trace, root: Path) -> set[str]:
    """Return files of the project that init opened, and that nothing opened, asked about or listed in another phase."""
    used = phases_of_use(trace)
    opened = {record.path for record in trace.of(FileOpened) if is_own(record.path, str(root))}
    return {Path(path).relative_to(root).as_posix() for path in opened if used.get(path) == {"init"}}


def _included(root: Path, patterns: Sequence[str]) -> set[str]:
    """Return files of the project that match a pattern of --include."""
    if not patterns:
        return set()
    names = GitIgnoreSpec.from_lines(patterns).match_tree_files(root)
    return {name for name in names if is_own(str(root / name), str(root)) and (root / name).is_file()}


def _patterns(root: Path, exclude: Sequence[str]) -> GitIgnoreSpec:
    """Return the patterns of --exclude and of the project's .tidalignore."""
    file = root / IGNORE_FILE
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return GitIgnoreSpec.from_lines([*lines, *exclude])


def _missed(trace: Trace, root: Path) -> set[str]:
    """Return files of the project that the program looked for and did not find, but for an event's own."""
    of_an_event = named_by_events(trace)
    asked = [record for record in trace.of(PathAsked) if is_own(record.path, str(root))]
    return {
        Path(question.path).relative_to(root).as_posix() for question in asked if not (question.found or of_an_event(question))
    }


def _notes(trace: Trace, root: Path, data: set[str], checkpoints: set[str]) -> Iterator[str]:
    """Yield what the user may want to ship besides."""
    for name in sorted(checkpoints):
        size = size_text((root / name).stat().st_size)
        yield f"{name} ({size}) is read by init alone and is not shipped: a start that has to run init needs it; --checkpoint ships it"
    texts = {text for text in event_texts(trace) if len(text) > 1}
    for name in sorted(data | _missed(trace, root)):
        path = Path(name)
        alike = {other.relative_to(root).as_posix() for other in (root / path.parent).glob(f"*{path.suffix}")}
        if path.suffix and path.stem in texts and alike - data:
            yield f"{name} is named by the event: --include '{path.parent / ('*' + path.suffix)}' ships those of other events, too"
