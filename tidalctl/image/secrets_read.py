"""Secrets that a function's imports read: they would lie in its process image for anybody to find."""

import re

from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.artifacts.cause import Cause, Reason

SECRET = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|SECRETS|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH|DSN)(?:$|_)")


def secret_read(manifest: Manifest) -> Reason | None:
    """Return that a variable with a secret's name, or a file that the bundle leaves out, was read; or None."""
    variables = sorted({name for state in manifest.held for name in state.guard.environ if SECRET.search(name.upper())})
    files = sorted({f"{name}" for state in manifest.held for name in state.guard.left_out})
    what = [f"the variable {name}" for name in variables] + [f"the file {name}" for name in files]
    return Cause.IMAGE_SECRET_READ.of(what=what[0]) if what else None
