"""Sizes as people write them."""

import re

from tidalctl.artifacts.errors import TidalError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_size(option: str, text: str, example: str = "5GB", *, zero: bool = False) -> int:
    """A size such as 5GB, 500MiB or 1000000, in bytes. Raises TidalError, which names the option."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*((?:[KMGT]I?)?)B?", text.strip().upper())
    size = float(found[1]) * _UNITS[found[2]] if found is not None else -1
    if not (0 if zero else 1) <= size < 2**63:
        raise TidalError(f"{option} {text!r} is not a size", f"for example: {option} {example}")
    return int(size)
