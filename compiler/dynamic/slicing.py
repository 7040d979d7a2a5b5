"""The backward slice of one call of init: the steps that make its dynamic weights, from files and static tensors.

Walks the tape from its end. A storage is *needed* while the content that it has at that point goes into a dynamic weight. The walk ends
at reads, and at *leaves*: contents that every event has alike, so that the template can hold them.
"""

from collections.abc import Iterable, Sequence

import msgspec

from tidalctl.artifacts.cause import Cause, Refused
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace.tape import DOUBT, HOST_READ, OVERWRITES, TapeRead, TapeStep, Value, values_in, whole

# memory that holds nothing yet: never a leaf, and made where it is wanted
_ALLOCATIONS = ("aten.empty.", "aten.empty_like.", "aten.empty_strided.", "aten.new_empty.", "aten.new_empty_strided.")


class NotSliced(Refused):
    """No script can be derived."""


class Leaf(Record, frozen=True):
    """A static content of a storage. `value` is a tensor over it, and `made` its geometry."""

    value: int
    storage: int
    identity: str
    made: Value


class Slice(Record, frozen=True):
    """Steps in the order in which init ran them. `results` are the values of the dynamic weights, by name."""

    event: int
    reads: tuple[TapeRead, ...]
    leaves: tuple[Leaf, ...]
    steps: tuple[TapeStep, ...]
    results: dict[str, int]
    geometry: dict[int, Value]


def identities(records: Iterable[TapeRead | TapeStep]) -> set[str]:
    """The identities of everything that a call of init made, doubtful ones too."""
    found: set[str] = set()
    for record in records:
        if isinstance(record, TapeRead):
            found.add(record.identity)
        else:
            found.update(identity for _, identity in record.identities)
    return found


def identities_from(records: Iterable[TapeRead | TapeStep], files: Sequence[str]) -> set[str]:
    """The identities of all that was made with something out of the files."""
    of_files: set[int] = set()
    found: set[str] = set()
    known: dict[int, Value] = {}
    for record in records:
        if isinstance(record, TapeRead):
            known[record.value] = record.made
            if record.file in files:
                of_files.add(record.made.storage)
                found.add(record.identity)
            continue
        known.update(zip(record.outputs, record.made, strict=False))
        inputs = {known[n].storage for n in values_in([record.arguments, list(record.keywords.values())]) if n in known}
        if inputs & of_files:
            of_files.update(storage for storage, _ in record.identities)
            found.update(identity for _, identity in record.identities)
    return found


def geometry_of(records: Iterable[TapeRead | TapeStep]) -> dict[int, Value]:
    found: dict[int, Value] = {}
    for record in records:
        if isinstance(record, TapeRead):
            found.setdefault(record.value, record.made)
        else:
            for number, made in zip(record.outputs, record.made, strict=False):
                found.setdefault(number, made)
    return found


def slice_back(event: int, records: Sequence[TapeRead | TapeStep], results: dict[str, int], static: set[str]) -> Slice:
    """Cut out what makes `results`. `static` are the identities that all events have, without doubtful ones. Raises NotSliced."""
    geometry = geometry_of(records)
    walk = _Walk(geometry, static)
    for value in results.values():
        walk.need(value)
    for record in reversed(records):
        if isinstance(record, TapeRead):
            walk.read(record)
        elif not record.view:
            walk.step(record)
    views = _views(records, results.values(), walk)
    ordered = sorted([*walk.steps, *views], key=lambda step: step.ordinal)
    return _with_clones(
        Slice(
            event=event,
            reads=tuple(reversed(walk.reads)),
            leaves=tuple(walk.leaves.values()),
            steps=tuple(ordered),
            results=results,
            geometry=geometry,
        )
    )


class _Walk:
    """Where the walk stands. `seen` are the storages that the slice touches anywhere."""

    def __init__(self, geometry: dict[int, Value], static: set[str]) -> None:
        self._geometry = geometry
        self._static = static
        self._needed: set[int] = set()
        self._allocated: set[int] = set()
        self.seen: set[int] = set()
        self.reads: list[TapeRead] = []
        self.steps: list[TapeStep] = []
        self.leaves: dict[int, Leaf] = {}

    def storage(self, value: int) -> int:
        return self._geometry[value].storage

    def need(self, value: int) -> None:
        storage = self.storage(value)
        if storage in self.leaves:
            raise NotSliced(Cause.NOT_IN_A_SCRIPT, what="it uses a static tensor as that was at two times")
        self._allocated.discard(storage)  # whose memory comes with the content that is needed
        self._needed.add(storage)
        self.seen.add(storage)

    def _leave(self, storage: int, value: int, identity: str) -> bool:
        """Take the content for a leaf, where it is static."""
        if storage not in self._needed or identity not in self._static:
            return False
        self._needed.discard(storage)
        self.leaves[storage] = Leaf(value=value, storage=storage, identity=identity, made=self._geometry[value])
        return True

    def read(self, record: TapeRead) -> None:
        storage = record.made.storage
        if storage in self._allocated:
            self._allocate(record, record.value, record.made)
        if storage not in self._needed or self._leave(storage, record.value, record.identity):
            return
        if record.identity.startswith(DOUBT):
            raise NotSliced(
                Cause.NOT_IN_A_SCRIPT, what="it takes a tensor that was made outside of torch (NumPy, a list, an extension)"
            )
        self._needed.discard(storage)
        self.reads.append(record)

    def step(self, record: TapeStep) -> None:
        touched = dict(record.identities)
        hit = [storage for storage in touched if storage in self._needed or storage in self._allocated]
        if not hit:
            return
        if record.operator.startswith("host."):
            raise NotSliced(Cause.VALUES_READ)
        before = {self.storage(n) for n in values_in([record.arguments, list(record.keywords.values())])}
        allocation = record.operator.startswith(_ALLOCATIONS)
        simple = not before and not record.draws  # a factory: made again more easily than kept
        if not simple and not allocation:
            values = {self.storage(number): number for number in (*record.outputs, *record.writes)}
            hit = [storage for storage in hit if not self._leave(storage, values[storage], touched[storage])]
        created = [storage for storage in hit if storage not in before]
        if not any(
            storage in self._needed for storage in hit
        ):  # memory that is wanted empty, or written to before it was filled
            for number, made in zip(record.outputs, record.made, strict=False):
                if made.storage in created:
                    self._allocate(record, number, made)
            return
        if record.draws:
            raise NotSliced(Cause.NOT_IN_A_SCRIPT, what="it draws random numbers into what depends on the event")
        self.steps.append(_plain_allocation(record) if allocation else record)
        overwritten = self._overwritten(record)
        for storage in created:
            self._needed.discard(storage)
            self._allocated.discard(storage)
        for number in values_in([record.arguments, list(record.keywords.values())]):
            filled = number == overwritten and record.arguments.count({"value": number}) == 1
            if not filled and self.storage(number) not in created:
                self.need(number)
        if overwritten is not None and not self._reads_itself(record, overwritten):
            storage = self.storage(overwritten)
            self._needed.discard(storage)
            self._allocated.add(storage)

    def _allocate(self, record: TapeRead | TapeStep, number: int, made: Value) -> None:
        """Memory for what is filled later, whatever it was made with."""
        if made.storage not in self._allocated:
            return
        self._allocated.discard(made.storage)
        if not whole(made):
            raise NotSliced(Cause.NOT_IN_A_SCRIPT, what="it fills a part of a larger tensor anew")
        self.steps.append(
            TapeStep(
                event=record.event,
                ordinal=record.ordinal,
                operator="aten.empty_strided.default",
                arguments=(list(made.shape), list(made.stride)),
                keywords={"dtype": {"dtype": made.dtype}, "device": {"device": made.device}},
                outputs=(number,),
                made=(made,),
            )
        )

    def _overwritten(self, record: TapeStep) -> int | None:
        """The value that the step fills without looking, where it is all of its storage."""
        if record.operator.rpartition(".")[0] not in OVERWRITES or not record.writes:
            return None
        value = record.writes[0]
        made = self._geometry[value]
        return value if whole(made) else None

    def _reads_itself(self, record: TapeStep, value: int) -> bool:
        others = values_in([record.arguments[1:], list(record.keywords.values())])
        return any(self.storage(other) == self.storage(value) for other in others)


def _views(records: Sequence[TapeRead | TapeStep], results: Iterable[int], walk: _Walk) -> list[TapeStep]:
    """The steps that make the views through which the slice looks at its storages."""
    makers: dict[int, TapeStep] = {}
    for record in records:
        if isinstance(record, TapeStep) and record.view:
            for number in record.outputs:
                makers.setdefault(number, record)
    wanted = [n for step in walk.steps for n in values_in([step.arguments, list(step.keywords.values())])] + list(results)
    found: dict[int, TapeStep] = {}
    given = {read.value for read in walk.reads}
    for step in walk.steps:  # what writes to a view gives it back, and has not made it
        given |= set(step.outputs) - set(values_in([step.arguments, list(step.keywords.values())]))
    while wanted:
        number = wanted.pop()
        maker = makers.get(number)
        if maker is None or number in given or maker.ordinal in found:
            continue
        if any(leaf.value == number for leaf in walk.leaves.values()):
            continue
        found[maker.ordinal] = maker
        wanted += values_in([maker.arguments, list(maker.keywords.values())])
    return list(found.values())


def refuse_host_reads(records: Sequence[TapeRead | TapeStep], common: set[str]) -> None:
    """What the host reads of a tensor that depends on the event may become anything: a number in another step, or a branch.

    `common` are the identities that all events have, doubtful ones too. Raises NotSliced.
    """
    now: dict[int, str] = {}
    geometry = geometry_of(records)
    for record in records:
        if isinstance(record, TapeRead):
            now[record.made.storage] = record.identity
        elif record.operator.startswith((HOST_READ, "host.")):
            looked = (now.get(geometry[number].storage, "") for number in values_in(list(record.arguments)))
            if any(identity not in common for identity in looked):
                raise NotSliced(Cause.VALUES_READ)
        now.update(record.identities if isinstance(record, TapeStep) else ())


def _plain_allocation(step: TapeStep) -> TapeStep:
    """Memory like that of a tensor without any (on the meta device), by its sizes."""
    if not any(isinstance(argument, dict) and "meta" in argument for argument in step.arguments):
        return step
    made = step.made[0]
    return msgspec.structs.replace(
        step,
        operator="aten.empty_strided.default",
        arguments=(list(made.shape), list(made.stride)),
        keywords={"dtype": {"dtype": made.dtype}, "device": {"device": made.device}},
    )


def _with_clones(cut: Slice) -> Slice:
    """Memory that is only there for all of a read to be copied to is the read's clone, whatever its sizes are."""
    steps = list(cut.steps)
    for step in cut.steps:
        if step.operator != "aten.copy_.default" or len(values_in(list(step.arguments))) != 2:
            continue
        target, source = values_in(list(step.arguments))
        one, other = cut.geometry[target], cut.geometry[source]
        if (one.dtype, one.shape, one.stride, one.device) != (other.dtype, other.shape, other.stride, other.device):
            continue
        made = [s for s in steps if target in s.outputs and s.operator.startswith(_ALLOCATIONS)]
        before = [
            s
            for s in steps
            if s.ordinal < step.ordinal and s not in made and target in values_in([s.arguments, list(s.keywords.values())])
        ]
        if whole(one) and whole(other) and len(made) == 1 and not before:
            clone = msgspec.structs.replace(
                step, operator="aten.clone.default", arguments=({"value": source},), keywords={}, writes=()
            )
            steps = [clone if s is step else s for s in steps if s is not made[0]]
    return msgspec.structs.replace(cut, steps=tuple(steps))
