"""Which files are the project's own: below its folder, and not Python's, ours, or of an environment that is installed there."""

import functools
import os
import sys
from collections.abc import Iterable
from pathlib import Path

_FOLDERS = frozenset(["site-packages", "dist-packages"])
_OURS = str(Path(__file__).parent.parent)


@functools.lru_cache(maxsize=65536)
def is_own(file: str, root: str) -> bool:
    """Both are absolute. A project may lie at the top of the file system, as in many a container."""
    path = Path(file)
    if not file.startswith(inside(root)) or not _FOLDERS.isdisjoint(path.parts):
        return False
    return not any(
        path.is_relative_to(entry) for entry in (*installed(), _OURS) if entry != root and Path(entry).is_relative_to(root)
    )


@functools.cache
def installed() -> tuple[str, ...]:
    """Folders of Python and of the environment that it runs in."""
    import sysconfig  # for tracing and compiling

    paths = sysconfig.get_paths()
    return tuple({paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")} | {sys.prefix, sys.base_prefix})


@functools.cache
def import_folders() -> tuple[Path, ...]:
    """Return the entries of sys.path below which installed files lie; the standard library, whose folder may hold the others, last."""
    import sysconfig

    library = Path(sysconfig.get_paths()["stdlib"])  # "platstdlib" is the virtual environment's
    packages = sorted(Path(entry) for entry in installed() if entry.endswith(("site-packages", "dist-packages")))
    return (*packages, library / "lib-dynload", library)


def place_below(path: Path, folders: Iterable[Path]) -> str:
    """Return a file's path relative to the first of the folders that it lies in; empty where it lies in none."""
    return next((path.relative_to(folder).as_posix() for folder in folders if path.is_relative_to(folder)), "")


def inside(folder: str) -> str:
    """How paths of what lies in a folder begin."""
    return folder.rstrip(os.sep) + os.sep
