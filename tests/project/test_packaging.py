"""What an installation holds: every package of the house, and the files that it reads beside its modules."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_of_the_house_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    places = {**{f"tidalctl.{name}": name for name in ("artifacts", "compiler", "tracer")}, "tidalctl": "tidalctl"}
    there = set()
    for package, place in places.items():
        for folder in [ROOT / place, *(path for path in (ROOT / place).rglob("*") if path.is_dir())]:
            if folder.name != "__pycache__" and any(folder.glob("*.py")):
                there.add(".".join([package, *folder.relative_to(ROOT / place).parts]))
    assert set(project["packages"]) == there


def test_files_beside_modules_are_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package, place in {"tidalctl": "tidalctl", "tidalctl.report": "tidalctl/report"}.items():
        listed = {path.name for pattern in project["package-data"][package] for path in (ROOT / place).glob(pattern)}
        assert listed == {path.name for path in (ROOT / place).iterdir() if path.is_file() and path.suffix != ".py"}
