"""What must hold for a start from a process image; else the start is an ordinary one, with a cause."""

import os
from collections.abc import Mapping
from pathlib import Path

from tidalctl.artifacts.bundle import IMAGE_FOLDER
from tidalctl.host.import_environment import other_variable
from tidalctl.image.criu import VARIABLE, find_criu, others_may_write
from tidalctl.image.machine import changed_file, describe_machine
from tidalctl.image.manifest import ImageManifest, bundle_digest, text_digest

Refusal = tuple[str, dict[str, object]]  # the code of a cause, and the fields of its text


def image_mismatch(bundle: Path, manifest: ImageManifest, environ: Mapping[str, str]) -> Refusal | None:
    """Return the first condition that does not hold here, or None."""
    if bundle_digest(bundle) != manifest.bundle:
        return "image-of-other-bundle", {"what": "another bundle"}
    if os.path.realpath(bundle) != manifest.path:
        return "image-of-other-bundle", {"what": f"the bundle at {manifest.path}"}
    here = describe_machine()
    if (other := next((name for name, value in manifest.machine.items() if here.get(name) != value), None)) is not None:
        return "image-machine-differs", {"what": other}
    caller = {name: text_digest(value) for name, value in environ.items()}
    if (variable := other_variable(manifest.reads, manifest.environ, caller)) is not None:
        return "image-environment-differs", {"name": variable}
    if manifest.user not in (-1, os.getuid()):
        return "image-user-differs", {}
    if (file := changed_file(manifest.stamps)) is not None:
        return "image-file-differs", {"file": file}
    return None


def untrusted_image(bundle: Path, manifest: ImageManifest) -> Refusal | None:
    """Return why an image must not be executed, or None: others may have written to it, or a file of it is not all there."""
    folder = bundle / IMAGE_FOLDER
    try:
        writable = next(
            (str(path) for path in (folder, *(folder / name for name in manifest.files)) if others_may_write(str(path))), None
        )
        sizes = {name: os.stat(folder / name).st_size for name in manifest.files}
    except OSError as error:
        return "image-spoiled", {"file": os.path.basename(error.filename or "")}
    if writable is not None:
        return "image-writable", {"path": writable}
    if (short := next((name for name, size in sizes.items() if size != manifest.files[name][0]), None)) is not None:
        return "image-spoiled", {"file": short}
    return None


def usable_criu(environ: Mapping[str, str]) -> str | Refusal:
    """Return the path of CRIU, or why there is none that this process may run."""
    criu = find_criu(environ)
    if criu is None:
        return "image-no-criu", {"variable": VARIABLE}
    if others_may_write(os.path.realpath(criu)):
        return "image-writable", {"path": criu}
    return criu
