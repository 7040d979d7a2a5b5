"""Finds secrets that a function's imports read: its process image would hold them in clear text."""

from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.secret_names import is_secret_file, is_secret_variable


def secret_read(manifest: Manifest) -> Reason | None:
    """Return that imports read a variable or a file with a secret's name, or None."""
    variables = {name for name in manifest.import_variables if is_secret_variable(name)}
    files = {needed.file.removeprefix("project:") for needed in manifest.needs if needed.phase == "import"}
    read = [f"the variable {name}" for name in sorted(variables)]
    read += [f"the file {name}" for name in sorted(files) if is_secret_file(name)]
    return Cause.IMAGE_SECRET_READ.of(what=read[0]) if read else None
