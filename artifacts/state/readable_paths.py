"""Paths to objects in a state, as a person writes them: `state["model"].layers[0].weight`."""

import re
from typing import Any

SHOWN = 300  # characters

# a module keeps its parts in dicts that nobody writes down
_PARTS = re.compile(r'\._(?:modules|parameters|buffers)\["(\w+)"\]')


def item(key: Any) -> str:
    """Return the step from a container to its item."""
    plain = isinstance(key, str) and key.isprintable() and not {'"', "\\"} & set(key)
    return f'["{key}"]' if plain else f"[{key!r}]"


def readable(path: str) -> str:
    """Return a path without the dicts of modules; of a long one the beginning and the end, which is where the culprit is."""
    path = _PARTS.sub(lambda found: f"[{found[1]}]" if found[1].isdigit() else f".{found[1]}", path)
    return path if len(path) <= SHOWN else f"{path[:60]} … {path[-200:]}"
