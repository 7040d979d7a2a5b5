"""Which of the files that the traced function opened, and that the bundle does not hold, are not here."""

import os
from collections.abc import Iterable, Iterator

from tidalctl.artifacts.bundle.manifest import Manifest, NeededFile


def missing_files(manifest: Manifest, roots: Iterable[str], *, init_runs: bool) -> Iterator[NeededFile]:
    """Yield the files that a start would look for and not find. `roots` gives where the project, or its copy, lies."""
    roots = list(roots)
    for needed in manifest.needs:
        if needed.phase == "init" and not init_runs:
            continue
        within = needed.file.removeprefix("project:")
        folders = roots if within != needed.file else [""]
        if not any(os.path.exists(os.path.join(folder, os.path.expanduser(within))) for folder in folders):
            yield needed
