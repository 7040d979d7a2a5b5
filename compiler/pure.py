"""Installed packages that hang on no shared library: such as can be imported while those of torch are being loaded."""

import re
from importlib import metadata

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def pure_packages() -> frozenset[str]:
    """Top-level packages of distributions in which, and in all that they require, there is no shared library.

    What only an extra requires is left out. A distribution that doesn't say what it installs, or requires one that isn't here, is not
    among them.
    """
    found = {_normal(one.metadata["Name"]): one for one in metadata.distributions() if one.metadata["Name"]}
    packages = metadata.packages_distributions()
    pure = {name for name in found if all(_holds_no_library(found.get(one)) for one in _closure(name, found))}
    return frozenset(package for package, owners in packages.items() if pure.issuperset(map(_normal, owners)))


def _closure(name: str, found: dict[str, metadata.Distribution]) -> set[str]:
    """A distribution, what it requires, what that requires, and so on."""
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += _requirements(found[name]) if name in found else ()
    return reached


def _holds_no_library(distribution: metadata.Distribution | None) -> bool:
    files = distribution.files if distribution is not None else None
    return bool(files) and not any(".so" in file.suffixes for file in files or ())


def _requirements(distribution: metadata.Distribution) -> list[str]:
    """Names of what a distribution requires on some platform."""
    required = [text for text in distribution.requires or () if "extra" not in text.partition(";")[2]]
    return [_normal(match.group()) for text in required if (match := _NAME.match(text.strip()))]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
