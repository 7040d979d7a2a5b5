"""Which distributions a bundle is bound to."""

from pathlib import Path

import pytest
from sample_artifacts import fingerprint as sample

from tidalctl.artifacts import fingerprint


def distribution(site: Path, name: str) -> None:
    package = site / name
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "RECORD").write_text(f"{name}/__init__.py,,\n")


@pytest.mark.parametrize(("site", "bound"), [("outer/_vendor", ["outer"]), ("venv/lib", ["inner", "outer"])])
def test_a_distribution_vendored_in_another_is_left_to_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str, bound: list[str]
) -> None:
    """It comes to sys.path when the outer one is imported, as setuptools' do, and would be missed at the start of a run."""
    distribution(tmp_path, "outer")
    distribution(tmp_path / site, "inner")
    monkeypatch.setattr("sys.path", [str(tmp_path), str(tmp_path / site)])
    found = dict(fingerprint._distributions(["outer", "inner"]))
    assert sorted(found) == bound
    assert fingerprint.changed_distributions(sample(distributions=found), [str(tmp_path), str(tmp_path / "venv/lib")]) == []
