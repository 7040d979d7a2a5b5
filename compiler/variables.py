"""Which environment variables pin a bundle: those that the trace saw read, and what the user says of them."""

from collections.abc import Collection
from fnmatch import fnmatchcase

import msgspec

from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import EnvironReads
from tidalctl.function.working_environment import variable_digest


def with_variables(trace: Trace, pinned: Collection[str], ignored: Collection[str]) -> Trace:
    """Return the trace with the `pinned` variables, as this process has them, and without the `ignored` ones, which may be patterns."""
    reads = environ_reads(trace)
    names = {**reads.variables, **{name: variable_digest(name) for name in pinned if name not in reads.variables}}
    kept = {name: seen for name, seen in names.items() if not any(fnmatchcase(name, pattern) for pattern in ignored)}
    chosen = msgspec.structs.replace(
        reads,
        variables=dict(sorted(kept.items())),
        at_init={name: seen for name, seen in reads.at_init.items() if name in kept},
        all_by="" if pinned or ignored else reads.all_by,
    )
    others = [record for record in trace.records if not isinstance(record, EnvironReads)]
    return Trace(trace.header, [*others, chosen], trace.complete)


def environ_reads(trace: Trace) -> EnvironReads:
    """Return what the trace saw read; of a trace that holds none, an empty record."""
    return trace.one(EnvironReads) or EnvironReads(variables={})


def variables_warning(trace: Trace) -> list[str]:
    """Return a warning where something looked at all variables, so that nobody knows which of them matter."""
    by = environ_reads(trace).all_by
    if not by:
        return []
    return [
        f"{by} looks at all environment variables: name those that the state hangs on with --pin-env NAME, "
        "or say that none does with --ignore-env '*'"
    ]
