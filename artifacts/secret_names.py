"""Names that say that something is a secret: of environment variables, and of files."""

from fnmatch import fnmatchcase
from pathlib import PurePosixPath

FILES = (
    *(".env*", "*credential*", "*secret*", "*.pem", "*.key", "id_rsa*", "id_ecdsa*", "id_ed25519*"),
    *(".netrc", ".npmrc", ".pypirc", "token", "*.token", "*_token"),
)
VARIABLE_WORDS = frozenset(
    ("SECRET", "SECRETS", "TOKEN", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "CREDENTIALS", "KEY", "APIKEY")
)


def is_secret_variable(name: str) -> bool:
    """Whether one of the words of a variable's name says so: `DB_PASSWORD`."""
    return not VARIABLE_WORDS.isdisjoint(name.upper().split("_"))


def is_secret_file(name: str) -> bool:
    """Whether a file's name says so, or that of a folder above it."""
    parts = [part.lower() for part in PurePosixPath(name).parts]
    return any(fnmatchcase(part, pattern) for part in parts for pattern in FILES)
