"""Which part of a bundle's state init computed, so that another CPU capability than the trace's could give another."""

from tidalctl.compiler.snapshot.records import RNG, SnapshotReport
from tidalctl.compiler.strategy import Strategy
from tidalctl.lineage.computed import UNKNOWN_ORIGIN, Computed


def computed_part(kind: str, strategy: Strategy, report: SnapshotReport) -> str | None:
    """Name the first part of a bundle's state that init computed, and how, or return None. `kind` is the state's strategy."""
    if kind == "replay":  # holds what was read, and init computes the rest anew
        return None
    init, planned = strategy.inits[0], strategy.planned if kind == "script" else None
    bases = planned.bases if planned is not None else ()
    known = {name: weight.computed for weight in init.weights for name in weight.names}
    tape = Computed(init.records)
    known |= {base.name: tape.how(base.identity) for base in bases}
    for placement in report.placements:
        name = placement.entry.name
        if name != RNG and (how := known.get(name, UNKNOWN_ORIGIN)):
            return f"{name} is {how}"
    if init.call.computed_read is not None:
        return f"init looks at a number that is {init.call.computed_read}"
    return "the state holds something of NumPy's" if any(name.startswith("numpy") for name in report.globals) else None
