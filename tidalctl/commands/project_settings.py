"""`[tool.tidalctl]` of a project's pyproject.toml: what `tidalctl build` takes where no option says otherwise."""

import enum
import json
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from tidalctl.artifacts.errors import TidalError
from tidalctl.function.near_names import near_names
from tidalctl.function.shapes import ShapeName
from tidalctl.runtime.options import Require, UseImage

PROJECT_FILE = "pyproject.toml"
# keys, by the parameters that they stand for, and what they may be
KEYS: dict[str, tuple[str, type]] = {
    "target": ("target", str),
    "events": ("event", list),
    "output": ("output", str),
    "init": ("init", list),
    "static": ("static", bool),
    "shape": ("shape", str),
    "vary": ("vary", list),
    "encode": ("encode", bool),
    "once": ("once", bool),
    "context": ("fields", dict),
    "check-events": ("check_event", list),
    "include": ("include", list),
    "exclude": ("exclude", list),
    "checkpoint": ("checkpoint", bool),
    "pin-env": ("pin_env", list),
    "ignore-env": ("ignore_env", list),
    "require": ("require", str),
    "image": ("image", str),
}
CHOICES: dict[str, type[enum.Enum]] = {"shape": ShapeName, "require": Require, "image": UseImage}
WORDS = {str: "a text", list: "a list", bool: "true or false", dict: "a table"}


class ProjectSettings(NamedTuple):
    """Options by the names of `build`'s parameters, and the file that they come from; None where there is none."""

    options: dict[str, Any]
    file: Path | None


def read_settings(folder: Path) -> ProjectSettings:
    """Read the settings of the nearest pyproject.toml that has some, in a folder or above it.

    Paths are relative to that file. Raises TidalError where a key is unknown, or a value is of another kind.
    """
    for place in (folder, *folder.parents):
        file = place / PROJECT_FILE
        if not file.is_file():
            continue
        try:
            body = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TidalError(f"{file} is not TOML: {error}", "mend it, or give the options on the command line") from None
        table = body.get("tool", {}).get("tidalctl")
        if table is not None:
            return ProjectSettings({KEYS[key][0]: _value(file, key, value) for key, value in _known(file, table)}, file)
    return ProjectSettings({}, None)


def _known(file: Path, table: Any) -> list[tuple[str, Any]]:
    if not isinstance(table, dict):
        raise TidalError(f"{file}: tool.tidalctl is not a table", "write [tool.tidalctl], and the keys below it")
    for key in table:
        if key not in KEYS:
            near = near_names(key, KEYS)
            hint = f"did you mean: {', '.join(near)}" if near else f"the keys are: {', '.join(KEYS)}"
            raise TidalError(f"{file}: [tool.tidalctl] has no key {key}", hint)
    return list(table.items())


def _value(file: Path, key: str, given: Any) -> Any:
    """Return what the option of a key would be. Events and checks may be tables, texts of JSON, or files relative to `file`."""
    kind: Any = KEYS[key][1]
    value: Any = [given] if kind is list and isinstance(given, str | dict) else given
    if not isinstance(value, kind):
        raise TidalError(f"{file}: {key} is not {WORDS[kind]}", f"for example: {key} = {_example(kind)}")
    if key in ("events", "check-events"):
        return [_event(file, event) for event in value]
    if kind is list and not all(isinstance(one, str) for one in value):
        raise TidalError(f"{file}: {key} is not a list of texts", f'for example: {key} = ["…"]')
    if kind is dict:
        return json.dumps(value)
    if key == "target" and value.partition(":")[0].endswith(".py"):
        return str(file.parent / value)
    if key in CHOICES:
        try:
            return CHOICES[key](value)
        except ValueError:
            choices = ", ".join(choice.value for choice in CHOICES[key])
            raise TidalError(
                f"{file}: {key} = {value!r} is none of {choices}",
                f"write one of them: {key} = {next(iter(CHOICES[key])).value!r}",
            ) from None
    return Path(file.parent, value) if key == "output" else value


def _event(file: Path, event: Any) -> str:
    if isinstance(event, dict):
        return json.dumps(event)
    if not isinstance(event, str):
        raise TidalError(f"{file}: an event is neither a table nor a text", 'for example: events = [{ prompt = "Hello" }]')
    return event if event.lstrip().startswith("{") else str(file.parent / event)


def _example(kind: type) -> str:
    return {str: '"…"', list: '["…"]', bool: "true", dict: "{ … }"}[kind]
