"""How a process's Python modules were imported: from the pack, from a source that has changed since, or otherwise."""

import sys
from collections.abc import Collection
from importlib.machinery import SourceFileLoader


def module_counts(before: Collection[str], packed: Collection[str], changed: Collection[str]) -> dict[str, int]:
    """Of the modules that were not there `before`. `packed` and `changed` are names."""
    found = {"packed": len(packed), "changed": 0, "ordinary": 0}
    for name, module in list(sys.modules.items()):
        if name in before or name in packed or name.startswith("tidalctl"):
            continue
        spec = getattr(module, "__dict__", {}).get("__spec__")
        source = isinstance(getattr(spec, "loader", None), SourceFileLoader)
        if source and getattr(spec, "name", None) == name:  # and not here by another name
            found["changed" if name in changed else "ordinary"] += 1
    return found


def unforeseen_modules(foreseen: Collection[str]) -> list[str]:
    """Modules that are here and were not foreseen."""
    return sorted(name for name in sys.modules if name not in foreseen and not name.startswith("tidalctl"))
