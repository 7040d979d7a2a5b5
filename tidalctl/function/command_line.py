"""The arguments of the function's command line as a digest, which the same arguments of a moved project have, too."""

from collections.abc import Iterable, Sequence

from tidalctl.artifacts.records import digest_json
from tidalctl.function.project_places import marked, project_marks


def argv_digest(argv: Sequence[str], roots: Iterable[str]) -> str:
    """Return the digest of arguments, empty where there are none. Paths in one of the folders `roots` count by their place in it."""
    if not argv:
        return ""
    marks = project_marks(roots)
    return digest_json([marked(argument, marks) for argument in argv])
