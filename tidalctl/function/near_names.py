"""Names that were perhaps meant, for the hint of an error."""

from collections.abc import Iterable


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three of the known names that are like this one, the nearest first."""
    import difflib  # which no start needs that makes no mistake

    return difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)
