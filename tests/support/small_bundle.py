"""A bundle without a snapshot, written by hand beside its project: nothing is traced, so that it costs nothing."""

import json
from pathlib import Path

import sample_artifacts
from conftest import write_project

from tidalctl.artifacts.bundle.manifest import PROVENANCE


def write_bundle(folder: Path, app: str, reproducible: bool = True) -> Path:
    """Write `project` and the bundle `app.bundle` of it into a folder. Return the bundle."""
    project, bundle = folder / "project", folder / "app.bundle"
    write_project(project, app)
    environment = sample_artifacts.fingerprint(torch="9.9.9", cpu_capability="")
    sample_artifacts.write_bundle(bundle, app, reproducible=reproducible, fingerprint=environment)
    where = {"root": "../project", "cwd": "../project", "read": [], "code_files": ["project:app.py"]}
    (bundle / PROVENANCE).write_text(json.dumps(where))
    return bundle
