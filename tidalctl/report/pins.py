"""What pins a bundle, in words: the conditions that another machine or another environment is most likely to differ in."""

from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.artifacts.records import digest_json


def pinned_by(manifest: Manifest) -> list[str]:
    """Return the environment variables that a start compares, and the CPU where it does: `MODEL_DIR`, `SEED (unset)`.

    A settings field that is unset has two spellings in the guard, of which the one in capitals is named.
    """
    guard, unset = manifest.guard, digest_json([None])
    found: dict[str, str] = {}
    for name, seen in guard.environ.items():
        if seen == unset and name.upper() in guard.environ:
            name = name.upper()
        found[name] = f"{name} (unset)" if seen == unset else name
    computed = next((state.guard.computed for state in manifest.held if state.guard.computed is not None), None)
    cpu = [] if computed is None else [f"the CPU's vector instructions ({computed})"]
    return [text for _, text in sorted(found.items())] + cpu
