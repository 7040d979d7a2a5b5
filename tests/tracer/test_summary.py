"""What `trace` prints is true of each traced event, also where their inits make other states."""

from pathlib import Path

import msgspec
from sample_artifacts import sample_records

from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import FirstUse, Header, InitCall, Weight
from tidalctl.commands.trace import _summary


def test_each_events_init_is_told_with_its_own_weights_and_uses() -> None:
    found = sample_records()
    header = next(record for record in found if isinstance(record, Header))
    call = next(record for record in found if isinstance(record, InitCall))
    weight = next(record for record in found if isinstance(record, Weight))
    use = next(record for record in found if isinstance(record, FirstUse))
    calls = [msgspec.structs.replace(call, event=event) for event in (0, 1)]
    weights = [msgspec.structs.replace(weight, event=event, call=event, index=index) for index, event in enumerate((0, 1, 1))]
    uses = [msgspec.structs.replace(use, event=1, weight=index) for index in (1, 2)]
    lines = _summary(Trace(header, [*calls, *weights, *uses], True), Path("app.trace"), 4, None).splitlines()
    told = [line.split(": ", 1)[1] for line in lines if line.startswith("  init")]
    assert ["1 weight" in told[0] and "0 used" in told[0], "2 weights" in told[1] and "2 used" in told[1]] == [True, True]
    alone = _summary(Trace(header, [calls[0], weights[0]], True), Path("app.trace"), 4, None).splitlines()
    assert f"  init      {call.name} (" in alone[1]
