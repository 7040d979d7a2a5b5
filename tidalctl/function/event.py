"""An event: parsed from the command line, with the errors that name what is wrong with it."""

import difflib
import json
import os
import sys
from pathlib import Path
from typing import Any

from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.records import digest_json


def parse_event(text: str) -> tuple[dict[str, Any], str]:
    """An event from `--event`: JSON, a file that holds JSON, or `-` for standard input. Returns it and its JSON text."""
    shown = "standard input" if text == "-" else text
    path = Path(text)
    try:
        if text == "-":
            text = sys.stdin.read()
        elif not text.lstrip().startswith(("{", "[", '"')):
            if not _is_file(path):
                what = "is a folder" if os.path.isdir(text) else "no such file"
                raise TidalError(f"--event {shown[:80]}: {what}, and not a JSON object", _near_events(path))
            text = path.read_text(encoding="utf-8")
        event = json.loads(text)
        digest_json(event)  # Python reads NaN and halves of characters, which no other reader of JSON does
    except (ValueError, RecursionError) as error:
        raise TidalError(f"--event {shown} is not JSON: {error}", """for example: --event '{"prompt": "Hello"}'""") from None
    if not isinstance(event, dict):
        raise TidalError(f"--event {shown} is not a JSON object", """for example: --event '{"prompt": "Hello"}'""")
    return event, text


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text too long to be a name
        return False


def _near_events(path: Path) -> str:
    try:
        names = sorted(p.name for p in path.absolute().parent.glob("*.json"))
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.4)
    return f"did you mean: {', '.join(near)}" if near else """for example: --event '{"prompt": "Hello"}'"""
