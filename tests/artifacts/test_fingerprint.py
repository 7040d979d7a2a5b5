"""Which distributions a bundle is bound to."""

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
    found = dict(fingerprint._distributions(["outer", "inner"]))
    assert sorted(found) == bound
    assert fingerprint.changed_distributions(sample(distributions=found), [str(tmp_path), str(tmp_path / "venv/lib")]) == []
