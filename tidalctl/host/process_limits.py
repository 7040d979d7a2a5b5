"""A process's resource limits, as one process tells another of them."""

import resource
from collections.abc import Mapping, Sequence

NAMES = sorted(name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE")  # NOFILE's other name


def read_limits() -> dict[str, tuple[int, int]]:
    """Return the soft and the hard limit of this process by name."""
    return {name: resource.getrlimit(getattr(resource, name)) for name in NAMES}


def set_limits(limits: Mapping[str, Sequence[int]]) -> None:
    """Set this process's limits, as far as it may: a hard limit that is lower here stays."""
    for name, (soft, hard) in limits.items():
        kind = getattr(resource, name)
        here = resource.getrlimit(kind)
        if here == (soft, hard):
            continue
        try:
            resource.setrlimit(kind, (soft, hard))
        except (ValueError, OSError):
            resource.setrlimit(kind, (_lower(soft, here[1]), _lower(hard, here[1])))


def _lower(one: int, other: int) -> int:
    """Return the lower of two limits, of which -1 is none."""
    return min((limit for limit in (one, other) if limit != resource.RLIM_INFINITY), default=resource.RLIM_INFINITY)
