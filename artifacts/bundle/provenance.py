"""Where the plain function of a bundle lies, as compile noted it, and what has become of it since."""

import datetime
import json
import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tidalctl.artifacts.bundle.directory import file_digest
from tidalctl.artifacts.bundle.manifest import CODE, PROVENANCE, Manifest
from tidalctl.artifacts.errors import COMPILE_AGAIN, TidalError

Fields = TypeVar("Fields", bound=msgspec.Struct)


def provenance_fields(bundle: Path, kind: type[Fields]) -> Fields:
    """Return the fields of the provenance that `kind` names; its defaults where the provenance is lost or says something else."""
    try:
        return msgspec.json.decode((bundle / PROVENANCE).read_bytes(), type=kind)
    except (OSError, ValueError, RecursionError):
        return kind()


def read_provenance(bundle: Path) -> dict[str, Any]:
    try:
        found = json.loads((bundle / PROVENANCE).read_bytes())
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise TidalError(f"{bundle / PROVENANCE} does not say where the plain function lies", COMPILE_AGAIN)
    return found


def project_of(provenance: dict[str, Any], manifest: Manifest) -> Path:
    """The project's folder. Raises TidalError where the function is no longer where it was traced."""
    root = Path(str(provenance.get("root", "")))
    if not root.is_absolute() or not (root / manifest.function.source).is_file():
        raise TidalError(
            f"the plain function is gone: no {root / manifest.function.source}",
            "its answers are compared with; put the project back, or trace and compile it where it lies now",
        )
    return root


def changed_files(manifest: Manifest, root: Path) -> list[str]:
    """Files of the project that are not what the bundle holds of them."""
    names = {name.removeprefix(f"{CODE}/"): stored for name, stored in manifest.files.items() if name.startswith(f"{CODE}/")}
    return [name for name, stored in names.items() if (root / name).is_file() and file_digest(root / name) != stored.sha256]


def changed_since(manifest: Manifest, root: Path, compiled: str) -> list[str]:
    """Python sources of the project that are not what the bundle holds, as far as size and time tell: what is not newer than the
    bundle, `compiled` at a time in ISO format, counts as unchanged if it has its size.
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
