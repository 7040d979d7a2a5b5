"""The arguments of the function's command line as a digest, which the same arguments of a moved project have, too."""

import os
from collections.abc import Iterable, Sequence

from tidalctl.artifacts.records import digest_json


def argv_digest(argv: Sequence[str], roots: Iterable[str]) -> str:
    """Return the digest of arguments, empty where there are none.

    A path in one of the folders `roots`, alone or behind `=`, counts by its place in it: `--config=/srv/app/a.json` as
    `--config=project:/a.json`.
    """
    if not argv:
        return ""
    import re  # for the few functions that are given arguments

    folders = dict.fromkeys(folder for root in roots for folder in (root, os.path.realpath(root)) if folder != os.sep)
    within = re.compile(rf"(^|=)(?:{'|'.join(map(re.escape, folders))})(?=/|$)") if folders else None
    return digest_json([within.sub(r"\1project:", argument) if within else argument for argument in argv])
