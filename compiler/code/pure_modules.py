"""What can be imported while torch's shared libraries are being loaded: what torch asks for, and what hangs on no shared library.

What the function or another package asks for can't, though it may hang on none: a statement before it may set what it reads.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Set
from pathlib import Path, PurePath

from tidalctl.artifacts.distributions import RECORD
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import Import

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def pure_for_torch(trace: Trace) -> frozenset[str]:
    """Modules of pure packages that torch's own modules asked for first, themselves or by another pure one."""
    importers = {record.name: record.importer for record in trace.of(Import)}
    pure = pure_packages({name.partition(".")[0] for name in importers})

    def asked_by_torch(name: str) -> bool:
        while name and name.partition(".")[0] in pure:
            name = importers.get(name, "")
        return name.partition(".")[0] == "torch"

    return frozenset(name for name in importers if name.partition(".")[0] in pure and asked_by_torch(name))


def pure_packages(among: Set[str]) -> frozenset[str]:
    """Those of these top-level packages in whose distributions, and in all that they require, there is no shared library.

    What only an extra requires is left out. A distribution that doesn't say what it installs, or requires one that isn't here, is not
    among them.
    """
    found: dict[str, Path] = {}  # the folders of the distributions' metadata
    for entry in dict.fromkeys(sys.path):
        for folder in sorted(Path(entry).glob("*.dist-info")):
            found.setdefault(_normal(folder.name.partition("-")[0]), folder)
    owners: dict[str, list[str]] = {}
    with_library: dict[str, bool] = {}  # of the distributions that say what they install
    for name, folder in found.items():
        files = _files(folder)
        if files:
            with_library[name] = any(".so" in PurePath(file).suffixes for file in files if ".so" in file)
        for package in {file.partition("/")[0].removesuffix(".py") for file in files} & among:
            owners.setdefault(package, []).append(name)

    def is_pure(names: Iterable[str]) -> bool:
        return not any(with_library.get(name, True) for name in _closure(names, found))

    return frozenset(package for package, names in owners.items() if is_pure(names))


def _files(folder: Path) -> list[str]:
    """Return the files that a distribution's RECORD lists."""
    try:
        rows = (folder / RECORD).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [row.rsplit(",", 2)[0].strip('"') for row in rows]


def _closure(names: Iterable[str], found: Mapping[str, Path]) -> set[str]:
    """Distributions, what they require, what that requires, and so on."""
    reached: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += _requirements(found[name]) if name in found else ()
    return reached


def _requirements(folder: Path) -> list[str]:
    """Names of what a distribution requires on some platform."""
    metadata = folder / "METADATA"
    header = metadata.read_text(encoding="utf-8").partition("\n\n")[0] if metadata.is_file() else ""
    required = [line.partition(":")[2] for line in header.splitlines() if line.startswith("Requires-Dist:")]
    wanted = [text for text in required if "extra" not in text.partition(";")[2]]
    return [_normal(match.group()) for text in wanted if (match := _NAME.match(text.strip()))]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
