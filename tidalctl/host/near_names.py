"""Names that were perhaps meant."""

import difflib
from collections.abc import Iterable


def near_names(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean: …` with the known names that are near, or the empty text."""
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)
    return f"; did you mean: {', '.join(near)}" if near else ""
