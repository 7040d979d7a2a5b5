"""Times on the command line. Imports little: each call with `--keep` pays for it."""

from tidalctl.artifacts.errors import TidalError

UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(option: str, text: str, example: str = "10m") -> float:
    """Return the seconds of `90s`, `10m` or `1h`. Raises TidalError, which names the option, for anything else."""
    number, unit = text[:-1], text[-1:]
    if unit in UNITS and number.replace(".", "", 1).isdecimal() and float(number) > 0:
        return float(number) * UNITS[unit]
    raise TidalError(f"{option} {text!r} is no time", f"for example: {option} {example}, or 90s, or 1h")
