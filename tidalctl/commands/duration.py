"""Times as people write them."""

import re

from tidalctl.artifacts.errors import TidalError

_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(option: str, text: str, example: str) -> float:
    """Return a time such as 90s, 1.5s, 500ms, 10m or 1h in seconds. Raises TidalError, which names the option."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)", text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found is not None else 0.0
    if not 0 < seconds < 1e9:
        raise TidalError(f"{option} {text!r} is not a time", f"for example: {option} {example}")
    return seconds
