"""Files that look like secrets, by name or by content: a bundle holds none unless the user says so."""

import re
from pathlib import Path, PurePosixPath

from tidalctl.artifacts.secret_names import is_secret_file

_KEY_MATERIAL = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_HEAD = 1024  # bytes that are looked at for key material


def looks_secret(name: str, root: Path) -> bool:
    """Whether a file, `name` in the project at `root`, looks like a secret, by itself or by what it links to."""
    path = (root / name).resolve()
    real_root = root.resolve()
    target = path.relative_to(real_root).parts if path.is_relative_to(real_root) else path.parts[-2:]
    if is_secret_file(name) or is_secret_file(str(PurePosixPath(*target))):
        return True
    with open(path, "rb") as file:
        return _KEY_MATERIAL.search(file.read(_HEAD)) is not None
