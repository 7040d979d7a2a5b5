"""`tidalctl build`: trace and compile as one, settings of pyproject.toml, and whether a bundle is what a build would give."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import forked, tidalctl, write_project

from tidalctl.artifacts.errors import TidalError
from tidalctl.commands.project_settings import KEYS, read_settings

APP = """
import os

import torch

import tidalctl

MODE = os.environ.get("APP_MODE", "usual")


@tidalctl.init(static=True)
def load():
    torch.manual_seed(3)
    return torch.nn.Linear(64, 64)


def handler(event, context):
    with torch.no_grad():
        return load()(torch.full((64, 64), float(event.get("n", 1)))).sum().item()
"""
SETTINGS = """
[tool.tidalctl]
target = "app.py"
events = [{ n = 1 }]
require = "snapshot"
image = "off"
"""


def test_two_lines_build_and_check(tmp_path: Path) -> None:
    write_project(tmp_path, {"app.py": APP, "pyproject.toml": SETTINGS})
    (tmp_path / "below").mkdir()
    built = tidalctl("build", "-o", "../app.bundle", "--json", cwd=tmp_path / "below").ok()
    assert built.report["strategy"] == "snapshot" and built.report["image_bytes"] is None
    assert "next: tidalctl compile" not in built.err and "next: tidalctl run" in built.err
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix in (".trace", ".bundle")) == [
        "app.bundle",
        "app.trace",
    ]
    assert "is what this source, these packages" in forked("build", "--check", "app.bundle", cwd=tmp_path).ok().out
    tidalctl("build", cwd=tmp_path).one_error("app.bundle", "--force")
    (tmp_path / "app.py").write_text(APP + "\n# changed\n")
    checked = forked("build", "--check", "app.bundle", "--json", cwd=tmp_path, env={"APP_MODE": "other"})
    assert (checked.code, len(checked.lines("error:"))) == (1, 1)
    report = json.loads(checked.out.strip().splitlines()[-1])
    assert not report["current"] and any("app.py" in text for text in report["differences"])
    assert any("APP_MODE" in text for text in report["differences"])


@pytest.mark.slow
def test_a_bundle_of_another_strategy_is_not_written(tmp_path: Path) -> None:
    write_project(tmp_path, {"app.py": APP.replace("    torch.manual_seed(3)\n", "")})
    tidalctl("build", "app.py", "-e", "{}", "--require", "snapshot", cwd=tmp_path).one_error(
        "not-reproducible", "no bundle", code=1
    )
    assert not (tmp_path / "app.bundle").exists()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    forked("build", cwd=tmp_path).one_error("no function to build", "tidalctl build app.py")
    write_project(tmp_path, {"app.py": APP})
    forked("build", "app.py", cwd=tmp_path).one_error("no event to trace", "--event")


def settings(folder: Path, text: str) -> dict[str, Any]:
    (folder / "pyproject.toml").write_text(text)
    return read_settings(folder).options


def test_settings_are_read_from_the_nearest_file_that_has_some(tmp_path: Path) -> None:
    inner = tmp_path / "one" / "two"
    inner.mkdir(parents=True)
    assert read_settings(inner) == ({}, None)
    text = """[tool.tidalctl]
target = "a/app.py:run"
output = "x.bundle"
events = ["e.json", '{"n": 1}', { n = 2 }]
init = "app:load"
"""
    assert settings(tmp_path, text) == {
        "target": f"{tmp_path}/a/app.py:run",
        "output": tmp_path / "x.bundle",
        "event": [f"{tmp_path}/e.json", '{"n": 1}', '{"n": 2}'],
        "init": ["app:load"],
    }
    (inner / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert read_settings(inner).file == tmp_path / "pyproject.toml"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[tool.tidalctl]\ntargets = 'a'\n", ("no key targets", "did you mean: target")),
        ("[tool.tidalctl]\nonce = 1\n", ("once is not true or false", "once = true")),
        ("[tool.tidalctl]\ntarget = ['a']\n", ("target is not a text",)),
        ("[tool.tidalctl]\nevents = [1]\n", ("an event is neither",)),
        ("[tool.tidalctl]\ninit = [1]\n", ("init is not a list of texts",)),
        ("[tool.tidalctl]\nrequire = 'snap'\n", ("require = 'snap' is none of snapshot, script, replay",)),
        ("[tool.tidalctl\n", ("is not TOML",)),
        ("[tool]\ntidalctl = 3\n", ("not a table",)),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(TidalError) as error:
        settings(tmp_path, text)
    told = f"{error.value.message}\n{error.value.hint}"
    assert all(part in told for part in parts), told


def test_every_key_stands_for_a_parameter_of_build() -> None:
    from inspect import signature

    from tidalctl.commands.build import build

    assert {parameter for parameter, _ in KEYS.values()} <= set(signature(build).parameters)
