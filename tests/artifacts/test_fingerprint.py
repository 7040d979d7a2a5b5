"""Which distributions a bundle is bound to."""

import sys
import zipfile
from pathlib import Path

import pytest
from conftest import distribution, write_project
from sample_artifacts import fingerprint as sample

from tidalctl.artifacts import fingerprint


@pytest.mark.parametrize(("site", "bound"), [("outer/_vendor", ["outer"]), ("venv/lib", ["inner", "outer"])])
def test_a_distribution_vendored_in_another_is_left_to_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str, bound: list[str]
) -> None:
    """It comes to sys.path when the outer one is imported, as setuptools' do, and would be missed at the start of a run."""
    for place, name in ((tmp_path, "outer"), (tmp_path / site, "inner")):
        write_project(place, {f"{name}/__init__.py": ""})
        distribution(place, name, [f"{name}/__init__.py"])
    monkeypatch.setattr("sys.path", [str(tmp_path), str(tmp_path / site)])
    found = dict(fingerprint._distributions(["outer", "inner"], str(tmp_path / "project")))
    assert sorted(found) == bound
    assert fingerprint.changed_distributions(sample(distributions=found), [str(tmp_path), str(tmp_path / "venv/lib")]) == []


def test_what_differs_is_named_with_both_versions(tmp_path: Path) -> None:
    for entry, folder in (("one", "My.Numbers-2.1.0"), ("two", "my_numbers-2.2.0"), ("two", "same-1.0"), ("two", "same-0.9")):
        (tmp_path / entry / f"{folder}.dist-info").mkdir(parents=True)
    made = sample(distributions={"my-numbers": "2.2.0", "same": "1.0", "gone": "3.0"})
    path = [str(tmp_path / "nowhere"), str(tmp_path / "one"), str(tmp_path / "two")]
    assert fingerprint.changed_distributions(made, path) == [
        "my-numbers 2.1.0 here, 2.2.0 in the trace",
        "gone not here, 3.0 in the trace",
    ]
    assert fingerprint.changed_distributions(made, path[2:]) == ["gone not here, 3.0 in the trace"]


@pytest.mark.parametrize("name", ["zipped.egg", "zipped.whl"])
def test_a_distribution_in_a_zip_file_counts_by_what_it_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def zipped(version: str) -> str:
        folder = tmp_path / version
        folder.mkdir()
        with zipfile.ZipFile(folder / name, "w") as file:
            file.writestr("zipped/__init__.py", "")
            metadata = "EGG-INFO" if name.endswith(".egg") else f"zipped-{version}.dist-info"
            file.writestr(
                f"{metadata}/{'PKG-INFO' if metadata == 'EGG-INFO' else 'METADATA'}", f"Name: zipped\nVersion: {version}\n"
            )
            file.writestr(f"{metadata}/top_level.txt", "zipped\n")
        return str(folder / name)

    monkeypatch.setattr("sys.path", [*sys.path, zipped("1.0")])
    found = dict(fingerprint._distributions(["zipped"], str(tmp_path / "project")))
    assert found == {"zipped": "1.0"}
    made = sample(distributions=found)
    assert fingerprint.changed_distributions(made, sys.path) == []
    assert fingerprint.changed_distributions(made, [zipped("1.1")]) == ["zipped 1.1 here, 1.0 in the trace"]


def test_a_distribution_in_the_project_is_shipped_and_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path / "vendor", {"inner/__init__.py": ""})
    distribution(tmp_path / "vendor", "inner", ["inner/__init__.py"])
    monkeypatch.setattr("sys.path", [str(tmp_path / "vendor")])
    assert dict(fingerprint._distributions(["inner"], str(tmp_path))) == {}
    assert dict(fingerprint._distributions(["inner"], str(tmp_path / "project"))) == {"inner": "1.0"}
