"""Installed distributions by their RECORD: the list that an installer leaves of a distribution's files, with a hash of each."""

import hashlib
from collections.abc import Iterator

RECORD = "RECORD"
Distribution = tuple[str, str]  # the name of the folder of its metadata, and the digest of its RECORD's rows


def rows_digest(record: bytes) -> str:
    """Return the sha256 of a RECORD's rows for source files and shared libraries, sorted.

    Another environment has the same rows: they give paths relative to its site-packages. The rest differs (bytecode, scripts, whoever
    installed it).
    """
    return hashlib.sha256(b"\n".join(sorted(_rows(record)))).hexdigest()


def files_of(record: bytes) -> Iterator[str]:
    """Yield the files that `rows_digest` covers, relative to site-packages."""
    for row in _rows(record):
        yield row.rsplit(b",", 2)[0].strip(b'"').decode("utf-8", "surrogateescape")


def source_digest(source: bytes) -> str:
    """Return a short digest of a source file, by which a changed one is told: 8 bytes, in hexadecimal."""
    return hashlib.blake2b(source, digest_size=8).hexdigest()


def _rows(record: bytes) -> Iterator[bytes]:
    for row in record.splitlines():
        path = row.rsplit(b",", 2)[0].strip(b'"')
        if path.endswith((b".py", b".so")) or b".so." in path:
            yield row
