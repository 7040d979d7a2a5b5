"""What init computed, by its tape: it may come out otherwise where the CPU offers other vector instructions.

Reads, views, copies, fills and whole numbers are the same on each. All else counts as computed: arithmetic with fractions, conversions
of one dtype to another, random numbers, and what is of unknown origin or went through NumPy.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tidalctl.artifacts.trace.tape import DOUBT, HOST_READ, OVERWRITES, UNKNOWN, TapeRead, TapeStep, Value, values_in, whole

FILLS = frozenset(
    f"aten.{made}"
    for kind in ("empty", "zeros", "ones", "full")
    for made in (kind, f"{kind}_like", f"new_{kind}", "empty_strided", "new_empty_strided")
)
COPIES = frozenset(
    f"aten.{name}" for name in ("copy_", "clone", "_to_copy", "cat", "stack", "repeat", "tril", "triu", "fill_", "zero_")
)
WHOLE = frozenset(("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))))
UNKNOWN_ORIGIN = "of unknown origin"
_UNSEEN = Value(storage=-1, dtype="", shape=(), stride=(), offset=0, size=0)


class Computed:
    """What one call of init computed. `host_read` says how a number was that the host took out of that; None where it took none."""

    def __init__(self, records: Iterable[TapeRead | TapeStep]) -> None:
        self.host_read: str | None = None
        self._values: dict[int, Value] = {}
        self._now: dict[int, str] = {}  # the identity of each storage's content
        self._how: dict[str, str] = {}  # by identity
        for record in records:
            if isinstance(record, TapeRead):
                self._read(record)
            else:
                self._step(record)

    def how(self, identity: str) -> str | None:
        """Say how content of this identity was computed, or return None where it was not."""
        known = self._how.get(identity)
        return known or (UNKNOWN_ORIGIN if not identity or identity.startswith(DOUBT) else None)

    def _read(self, record: TapeRead) -> None:
        self._values[record.value] = record.made
        self._now[record.made.storage] = record.identity
        loader = next((name for name in record.operators if not name.startswith("slice ")), None)
        if loader is not None and record.file != UNKNOWN:
            self._how[record.identity] = f"computed by {loader}"

    def _step(self, step: TapeStep) -> None:
        self._values |= zip(step.outputs, step.made, strict=True)
        by_host = step.operator.startswith("host.")
        name = step.operator if by_host else step.operator.rpartition(".")[0]
        if name == HOST_READ or (by_host and name != "host.shared"):
            self._host_reads(step, name)
        how = self._of_step(step, name) if step.identities else None
        for storage, identity in step.identities:
            self._now[storage] = identity
            if how is not None:
                self._how.setdefault(identity, how)

    def _host_reads(self, step: TapeStep, name: str) -> None:
        how = next((how for value in self._operands(step.arguments) if (how := self._of_value(value))), None)
        if step.identities:  # it got the memory, and may compute with it
            how = how or f"computed by {name}"
        if how is not None:
            self.host_read = min(how, self.host_read or how)  # of several the same in each trace, whatever the threads' order

    def _of_step(self, step: TapeStep, name: str) -> str | None:
        if name in FILLS or name == "host.shared":  # of which the identity tells
            return None
        written = self._operands([{"value": number} for number in step.writes])
        overwritten = bool(written) and name in OVERWRITES and whole(written[0])
        inputs = self._operands([step.arguments[1:] if overwritten else step.arguments, list(step.keywords.values())])
        for value in inputs:
            if how := self._of_value(value):
                return how
        dtypes = {value.dtype for value in (*inputs, *written, *step.made)}
        same_bytes = name in COPIES and len(dtypes) == 1
        whole_numbers = dtypes <= WHOLE and not step.draws and _whole_numbers([step.arguments, list(step.keywords.values())])
        return None if same_bytes or whole_numbers else f"computed by {name}"

    def _operands(self, arguments: Any) -> list[Value]:
        return [self._values.get(number, _UNSEEN) for number in values_in(arguments)]

    def _of_value(self, value: Value) -> str | None:
        return self.how(self._now.get(value.storage, ""))


def _whole_numbers(argument: Any) -> bool:
    """Whether an encoded argument holds no fraction, no generator, and nothing that is not known."""
    if isinstance(argument, Mapping):
        return argument.keys().isdisjoint(("float", "complex", "generator", "opaque"))
    if isinstance(argument, Sequence) and not isinstance(argument, str):
        return all(map(_whole_numbers, argument))
    return not isinstance(argument, float)
