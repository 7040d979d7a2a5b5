"""What can be imported while torch's shared libraries are being loaded: what torch asks for, and what hangs on no shared library.

What the function or another package asks for can't, though it may hang on none: a statement before it may set what it reads.
"""

import re
from collections.abc import Iterable, Set
from functools import cache
from importlib import metadata

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
    found = {_normal(one.metadata["Name"]): one for one in metadata.distributions() if one.metadata["Name"]}
    packages = metadata.packages_distributions()
    owners = {package: [_normal(owner) for owner in packages[package]] for package in among & packages.keys()}
    # listing a distribution's files takes milliseconds: each is asked once, and none that the trace has no use for

    @cache
    def holds_no_library(name: str) -> bool:
        files = found[name].files if name in found else None
        return bool(files) and not any(".so" in file.suffixes for file in files or ())

    return frozenset(package for package, names in owners.items() if all(map(holds_no_library, _closure(names, found))))


def _closure(names: Iterable[str], found: dict[str, metadata.Distribution]) -> set[str]:
    """Distributions, what they require, what that requires, and so on."""
    reached: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += _requirements(found[name]) if name in found else ()
    return reached


def _requirements(distribution: metadata.Distribution) -> list[str]:
    """Names of what a distribution requires on some platform."""
    required = [text for text in distribution.requires or () if "extra" not in text.partition(";")[2]]
    return [_normal(match.group()) for text in required if (match := _NAME.match(text.strip()))]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
