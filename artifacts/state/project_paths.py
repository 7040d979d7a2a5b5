"""Paths of the project in a state, which a skeleton holds by their place in it: a bundle's copy of the project lies elsewhere."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from tidalctl.artifacts.project import is_own

_KINDS = {kind.__name__: kind for kind in (str, pathlib.PosixPath, pathlib.PurePosixPath)}
KIND = "path"  # of persistent ids
ProjectPath = tuple[str, str, str]  # KIND, the name of the type, and what follows the project's folder


def project_roots(root: str) -> tuple[str, ...]:
    """Return the project's folder as it is named, and as it is without links; none where it is the top of the file system."""
    return tuple(name for name in dict.fromkeys([root, os.path.realpath(root)]) if name != os.sep)


def project_path(value: Any, roots: Sequence[str]) -> ProjectPath | None:
    """Return the place of a text or a path that begins with the project's folder; None of anything else."""
    if not roots or _KINDS.get(type(value).__name__) is not type(value):
        return None
    text = str(value)
    for root in roots:
        if text == root or (text.startswith(root) and is_own(text, root)):
            return KIND, type(value).__name__, text[len(root) :]
    return None


def path_at(place: ProjectPath, root: str) -> Any:
    """Return what a place stands for where the project, or its copy, lies at `root`."""
    _, kind, rest = place
    return _KINDS[kind](root + rest)
