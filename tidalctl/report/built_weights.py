"""What trace and compile say of a function for which no init is named: what builds its weights, and what to name."""

from tidalctl.artifacts.trace.records import FurtherCall, WeightsBuilt
from tidalctl.report.terminal import size_text


def what_to_name(init: str, built: WeightsBuilt | None) -> str:
    """Return how a sentence goes on that begins with: no init was called. `init` is what `--init` named."""
    if init:
        return (
            f": {init} is there, and nothing called it for these events; give one for which it is called, or let --init auto "
            "find what makes the weights"
        )
    if built is None:
        return ", and no weights of 1 MiB or more were seen to be made: a bundle holds the function's imports"
    size = size_text(built.nbytes)
    if not built.name:
        return (
            f": the handler itself builds {size} on each start; put that into a function of its own, and mark it with "
            "@tidalctl.init, to have it in the bundle"
        )
    name = built.name.partition(":")[2]
    return (
        f": {name} at {built.file}:{built.line} builds {size} on each start; to have that in the bundle, mark it with "
        f"@tidalctl.init or trace with --init {built.name}"
    )


def further_call(call: FurtherCall) -> str:
    """Say that a call of an init runs in each start, since the bundle holds no state of it."""
    place = f" at {call.called_at}" if call.called_at else ""
    return f"{call.name}, called{place} for event {call.event}, runs in each start: {call.why}"


def init_found(built: WeightsBuilt) -> str:
    """Return what was found to be the init, and is now traced as such."""
    size, lines = size_text(built.nbytes), built.name.partition(":")[2]
    if not built.at_import:
        return f"--init {built.name}: it makes the weights ({size}; {built.file}:{built.line})"
    where = f"lines {lines.replace('-', ' to ')}" if "-" in lines else f"line {lines}"
    return f"{built.file} makes its weights ({size}) while it is imported, on {where}: they are init"
