"""Standard output whose encoding lacks characters."""

import codecs
import json
import sys


def print_any_character() -> None:
    """Have what the encoding lacks printed as JSON escapes it, so that JSON stays JSON; errors' own stream escapes of itself."""
    if sys.stdout is None or sys.stdout.encoding.lower() in ("utf-8", "utf8"):
        return
    codecs.register_error("tidalctl", _escaped)
    sys.stdout.reconfigure(errors="tidalctl")  # type: ignore[union-attr]


def _escaped(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
