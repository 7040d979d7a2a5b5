"""What an answering process has of its caller, told in a request: see `process_properties.take_over`. Imports little."""

import os
from typing import Any

from tidalctl.host.process_limits import read_limits


def caller_properties() -> dict[str, Any]:
    """Return this process's working directory, umask, resource limits and environment."""
    return {"directory": os.getcwd(), "umask": _umask(), "limits": read_limits(), "environ": dict(os.environ)}


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
