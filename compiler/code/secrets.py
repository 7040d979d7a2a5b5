"""Files that look like secrets, by name or by content: a bundle holds none unless the user says so."""

import re
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

# of a file or of a folder that it lies in, whatever the case
SECRET_NAMES = (
    *(".env*", "*credential*", "*secret*", "*.pem", "*.key", "id_rsa*", "id_ecdsa*", "id_ed25519*"),
    *(".netrc", ".npmrc", ".pypirc", "token", "*.token", "*_token"),
)
_KEY_MATERIAL = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_HEAD = 1024  # bytes that are looked at for key material


def looks_secret(name: str, path: Path) -> bool:
    """Whether a file, `name` in its project and at `path`, looks like a secret."""
    parts = [part.lower() for part in PurePosixPath(name).parts]
    if any(fnmatchcase(part, pattern) for part in parts for pattern in SECRET_NAMES):
        return True
    with open(path, "rb") as file:
        return _KEY_MATERIAL.search(file.read(_HEAD)) is not None
