"""Texts in which paths of the project count by their place in it, since a bundle's copy of the project lies elsewhere."""

import os
from collections.abc import Iterable

Mark = tuple[str, str]  # a folder, and what stands for it


def project_marks(roots: Iterable[str]) -> list[Mark]:
    """Return marks for the folders in which the project, or a copy of it, lies, also by links."""
    folders = dict.fromkeys(folder for root in roots for folder in (root, os.path.realpath(root)))
    return [(folder, "project:") for folder in folders]


def marked(text: str, marks: Iterable[Mark]) -> str:
    """Return a text with a mark in place of each folder: `--config=/srv/app/a.json` as `--config=project:/a.json`.

    A folder counts where a path begins with it: `/app` is none of `/home/app` and none of `/apple`.
    """
    import re  # for the few functions that are given arguments, set variables, or give init a path

    for folder, mark in marks:
        if folder != os.sep:
            text = re.sub(rf"(?<![\w/.~-]){re.escape(folder)}(?=[/:]|$)", mark.replace("\\", r"\\"), text)
    return text
