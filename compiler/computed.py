"""Which part of a bundle's state init computed, so that another CPU capability than the trace's could give another."""

from tidalctl.compiler.dynamic.derivation import Planned
from tidalctl.compiler.dynamic.recorded_init import EventInit
from tidalctl.compiler.snapshot.records import StateReport, is_generator
from tidalctl.lineage.computed import UNKNOWN_ORIGIN, Computed


def computed_part(init: EventInit, report: StateReport, planned: Planned | None = None) -> str | None:
    """Name the first part of a state that init computed, and how, or return None. `planned` is what a script makes of it."""
    bases = planned.bases if planned is not None else ()
    known = {name: weight.computed for weight in init.weights for name in weight.names}
    tape = Computed(init.records)
    known |= {base.name: tape.how(base.identity) for base in bases}
    shared = [weight.names[0] for weight in init.weights] if report.shares else []
    for name in [*(placement.entry.name for placement in report.placements), *shared]:
        if not is_generator(name) and (how := known.get(name, UNKNOWN_ORIGIN)):
            return f"{name} is {how}"
    if init.call.computed_read is not None:
        return f"init looks at a number that is {init.call.computed_read}"
    return "the state holds something of NumPy's" if any(name.startswith("numpy") for name in report.globals) else None
