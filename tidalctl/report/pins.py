"""What pins a bundle, in words: the conditions that another machine or another environment is most likely to differ in."""

from tidalctl.artifacts.bundle.manifest import Guard
from tidalctl.artifacts.records import digest_json


def pinned_by(guard: Guard) -> list[str]:
    """Return the environment variables that a start compares, and the CPU where it does: `MODEL_DIR`, `SEED (unset)`.

    A settings field that is unset has two spellings in the guard, of which the one in capitals is named.
    """
    unset = digest_json([None])
    found: dict[str, str] = {}
    for name, seen in guard.environ.items():
        if seen == unset and name.upper() in guard.environ:
            name = name.upper()
        found[name] = f"{name} (unset)" if seen == unset else name
    cpu = [] if guard.computed is None else [f"the CPU's vector instructions ({guard.computed})"]
    return [text for _, text in sorted(found.items())] + cpu
