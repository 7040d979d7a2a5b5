"""Where the plain function of a bundle lies, as compile noted it, and what has become of it since."""

import json
from pathlib import Path
from typing import Any

from tidalctl.artifacts.bundle.directory import file_digest
from tidalctl.artifacts.bundle.manifest import CODE, PROVENANCE, Manifest
from tidalctl.artifacts.errors import COMPILE_AGAIN, TidalError


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


def names_text(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
