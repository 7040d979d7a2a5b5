"""Files that a function's imports read and its bundle does not hold: a template of before another one lies there is none any more."""

import os
from pathlib import Path

import msgspec

from tidalctl.artifacts.bundle.manifest import CODE, Manifest
from tidalctl.artifacts.bundle.provenance import home_of, provenance_fields


class _Origin(msgspec.Struct, frozen=True):
    root: str = ""


def read_at_import(bundle: Path, manifest: Manifest) -> list[str]:
    """Return the paths at which imports look for files that the bundle does not hold, as far as the trace has seen it."""
    names = [needed.file for needed in manifest.needs if needed.phase == "import"]
    if not names:
        return []
    home = home_of(provenance_fields(bundle, _Origin).root, bundle, manifest)
    roots = [str(root) for root in (bundle / CODE, home) if root is not None]
    paths = [
        os.path.join(root, os.path.expanduser(name.removeprefix("project:")))
        for name in names
        for root in (roots if name.startswith("project:") else [""])
    ]
    return sorted(set(paths))


def stamp(path: str) -> list[int]:
    """Return what tells a file from another one of its name; nothing where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_ino, status.st_size, status.st_mtime_ns]
