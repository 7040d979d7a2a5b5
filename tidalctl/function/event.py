"""An event: parsed from the command line, with the errors that name what is wrong with it."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.records import digest_json
from tidalctl.function.near_names import near_names

EXAMPLE = """for example: --event '{"prompt": "Hello"}'"""


def parse_event(text: str) -> tuple[dict[str, Any], str]:
    """An event from `--event`: JSON, a file that holds JSON, or `-` for standard input. Returns it and its JSON text."""
    return read_object("--event", text, EXAMPLE)


def read_object(option: str, text: str, example: str) -> tuple[dict[str, Any], str]:
    """Return the JSON object that an option gives, as `--event` does, and its text. `example` is the hint where there is none."""
    shown = "standard input" if text == "-" else text
    path = Path(text)
    try:
        if text == "-":
            text = sys.stdin.read()
        elif not text.lstrip().startswith(("{", "[", '"')):
            if not _is_file(path):
                what = "is a folder" if os.path.isdir(text) else "no such file"
                raise TidalError(f"{option} {shown[:80]}: {what}, and not a JSON object", _near_files(path) or example)
            text = path.read_text(encoding="utf-8")
        found = json.loads(text)
        digest_json(found)  # Python reads NaN and halves of characters, which no other reader of JSON does
    except (ValueError, RecursionError) as error:
        raise TidalError(f"{option} {shown} is not JSON: {error}", example) from None
    if not isinstance(found, dict):
        raise TidalError(f"{option} {shown} is not a JSON object", example)
    return found, text


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text too long to be a name
        return False


def _near_files(path: Path) -> str | None:
    try:
        names = [p.name for p in path.absolute().parent.glob("*.json")]
    except OSError:
        names = []
    near = near_names(path.name, names)
    return f"did you mean: {', '.join(near)}" if near else None
