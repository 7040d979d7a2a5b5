"""What a library notes of the objects that it makes, outside of them: a restore makes them in another way, and has to note it, too."""

import sys
from typing import Any

# module and name of dicts in which one model's entry is as good as another's of its class
REGISTRIES = (("transformers.utils.output_capturing", "_CAN_RECORD_REGISTRY"),)
Noted = dict[tuple[str, str], dict[Any, Any]]


def noted() -> Noted:
    """What they hold now, of those whose libraries are here."""
    found: Noted = {}
    for module, name in REGISTRIES:
        registry = getattr(sys.modules.get(module), name, None)
        if isinstance(registry, dict) and registry:
            found[module, name] = dict(registry)
    return found


def note(entries: Noted) -> None:
    """Have them hold this as well. The libraries have been imported by what was restored of them."""
    for (module, name), items in entries.items():
        registry = getattr(sys.modules.get(module), name, None)
        if isinstance(registry, dict):
            dict.update(registry, items)  # as they lie there: a registry's own way may make another key of one
