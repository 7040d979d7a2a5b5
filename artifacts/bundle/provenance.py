"""What a bundle notes of its making, beside its digest: what was measured, and where the plain function lies, relative to the bundle.

There are no absolute paths: `project:` files are relative to the project, `installed:` files to an entry of sys.path; other files, and
the folders `root` (the project) and `cwd`, to the bundle's own folder. A bundle that was moved finds no project there, or somebody's:
it counts only where the function's source file is the one that the bundle ships.
"""

import datetime
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from tidalctl.artifacts.bundle.directory import file_digest
from tidalctl.artifacts.bundle.manifest import CODE, PROVENANCE, Manifest
from tidalctl.artifacts.errors import COMPILE_AGAIN, TidalError
from tidalctl.artifacts.project import import_folders, is_own, place_below

Fields = TypeVar("Fields", bound=msgspec.Struct)
Bytes = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
PROJECT, INSTALLED = "project:", "installed:"


class Touched(msgspec.Struct, frozen=True):
    """What of a shared library a start touches, by its name in the manifest's `readahead`: offset and length of each part."""

    touched: dict[str, tuple[tuple[Bytes, Bytes], ...]] = {}


class Observed(msgspec.Struct, frozen=True):
    """What `inspect` shows of the traced handler: seconds to the first use of each weight, and the modules whose code ran."""

    first_uses: dict[str, float] = {}
    executed: tuple[str, ...] | None = None


class ProjectChanged(TidalError):
    """The function's source file is no longer the one that the bundle ships."""


def provenance_fields(bundle: Path, kind: type[Fields]) -> Fields:
    """Return the fields of the provenance that `kind` names; its defaults where the provenance is lost or says something else."""
    try:
        return msgspec.json.decode((bundle / PROVENANCE).read_bytes(), type=kind)
    except (OSError, ValueError, RecursionError):
        return kind()


def folder_place(folder: str, bundle: Path) -> str:
    """Return a folder's, or a file's, path relative to the bundle's."""
    return os.path.relpath(folder, os.path.realpath(bundle))


def file_place(file: str, root: str, bundle: Path) -> str:
    """Return a file's place: in the project, below an entry of sys.path, or relative to the bundle."""
    if is_own(file, root):
        return f"{PROJECT}{os.path.relpath(file, root)}"
    name = place_below(Path(file), import_folders())
    return f"{INSTALLED}{name}" if name else folder_place(file, bundle)


def path_of(place: str, bundle: Path) -> Path:
    """Return the path of what `folder_place` gave a place."""
    return Path(os.path.normpath(os.path.join(os.path.realpath(bundle), place)))


def read_provenance(bundle: Path) -> dict[str, Any]:
    """Return the provenance, with paths of this machine in the place of the noted ones: `root`, `cwd`, `read`, `code_files`."""
    try:
        found = json.loads((bundle / PROVENANCE).read_bytes())
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("root"), str):
        raise TidalError(f"{bundle / PROVENANCE} does not say where the plain function lies", COMPILE_AGAIN)
    root = path_of(found["root"], bundle)
    cwd = found.get("cwd")
    lists = {name: [str(path) for path in _paths(found.get(name), root, bundle)] for name in ("read", "code_files")}
    return {**found, "root": str(root), "cwd": str(path_of(cwd, bundle) if isinstance(cwd, str) else root), **lists}


def _paths(places: Any, root: Path, bundle: Path) -> Iterable[Path]:
    entries: dict[str, str | None] = {}  # of sys.path, by the top-level folder that is found in it
    for place in places if isinstance(places, list) else ():
        if not isinstance(place, str) or "\0" in place:
            continue
        if place.startswith(PROJECT):
            yield root / place.removeprefix(PROJECT)
        elif place.startswith(INSTALLED):
            name = place.removeprefix(INSTALLED)
            top = name.partition("/")[0]
            if entries.get(top) is None:
                entries[top] = next((entry for entry in sys.path if entry and os.path.isfile(os.path.join(entry, name))), None)
            if (entry := entries[top]) is not None:
                yield Path(entry, name)
        else:
            yield path_of(place, bundle)


def folder_of(place: str, bundle: Path) -> Path | None:
    """Return the folder that `folder_place` gave a place; None where there is no such place."""
    return path_of(place, bundle) if place and "\0" not in place else None


def home_of(place: str, bundle: Path, manifest: Manifest) -> Path | None:
    """Return the project's folder by its place; None where the function that the bundle ships does not lie there."""
    root = folder_of(place, bundle)
    return root if root is not None and _holds_function(root, manifest) else None


def project_of(provenance: dict[str, Any], manifest: Manifest) -> Path:
    """Return the project's folder, by what `read_provenance` gave.

    Raises TidalError where the function is no longer where it was traced, ProjectChanged where its source is another one now.
    """
    root = Path(str(provenance.get("root", "")))
    source = root / manifest.function.source
    if not root.is_absolute() or not source.is_file():
        raise TidalError(
            f"the plain function is gone: no {source}",
            "its answers are compared with; put the project back, or trace and compile it where it lies now",
        )
    if not _holds_function(root, manifest):
        raise ProjectChanged(
            f"the plain function is not the one that the bundle was made from: {source}", "trace and compile it again"
        )
    return root


def _holds_function(root: Path, manifest: Manifest) -> bool:
    stored, source = manifest.files.get(f"{CODE}/{manifest.function.source}"), root / manifest.function.source
    try:
        return stored is not None and source.stat().st_size == stored.size and file_digest(source) == stored.sha256
    except OSError:
        return False


def changed_files(manifest: Manifest, root: Path) -> list[str]:
    """Files of the project that are not what the bundle holds of them."""
    names = {name.removeprefix(f"{CODE}/"): stored for name, stored in manifest.files.items() if name.startswith(f"{CODE}/")}
    return [name for name, stored in names.items() if (root / name).is_file() and file_digest(root / name) != stored.sha256]


def changed_sources(manifest: Manifest, root: Path, compiled: str) -> list[str]:
    """Return the project's Python sources that are not what the bundle holds, as far as size and time tell.

    A source of the same size that is no newer than the bundle, which was `compiled` at a time in ISO format, counts as unchanged.
    """
    try:
        made = datetime.datetime.fromisoformat(compiled).timestamp()
    except ValueError:
        return []
    found = []
    for name, stored in manifest.files.items():
        if name.startswith(f"{CODE}/") and name.endswith(".py"):
            file = f"{root}/{name.removeprefix(f'{CODE}/')}"
            try:
                known = os.stat(file)
                if known.st_size != stored.size or (known.st_mtime >= made and file_digest(Path(file)) != stored.sha256):
                    found.append(name.removeprefix(f"{CODE}/"))
            except OSError:  # gone, or nobody may read it: nothing that a start has to tell
                continue
    return found


def names_text(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
