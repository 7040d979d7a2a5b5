"""From the tapes of several events to the program that makes the weights in which they differ, or the reason why there is none."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace.tape import DOUBT, TapeRead, TapeStep, values_in
from tidalctl.compiler.dynamic.alignment import Alignment
from tidalctl.compiler.dynamic.expressions import Atom, explanations
from tidalctl.compiler.dynamic.program import Agreement, Program, ProgramLeaf, ProgramRead, ProgramStep
from tidalctl.compiler.dynamic.recorded_init import EventInit
from tidalctl.compiler.dynamic.request_files import RequestFiles, event_fields, refuse_unused
from tidalctl.compiler.dynamic.slicing import NotSliced, Slice, identities, identities_from, refuse_host_reads, slice_back
from tidalctl.compiler.script.quoting import expressions_in


class Base(Record, frozen=True):
    """A static content that the template must hold for the program, besides the state's static weights."""

    name: str
    identity: str
    dtype: str
    shape: tuple[int, ...]


class Planned(Record, frozen=True):
    """A program, the contents that it starts from, and the names of the weights that it makes."""

    program: Program
    bases: tuple[Base, ...]
    dynamic: tuple[str, ...]


def static_weights(inits: Sequence[EventInit], request_files: Sequence[str] = ()) -> set[str]:
    """Names of the weights whose lineage and content are the same for all events. Doubtful lineage is never the same.

    What comes out of a request's own file is the request's, even where all traced events named the same one.
    """
    first, *rest = [{weight.names[0]: weight for weight in init.weights} for init in inits]
    return {
        name
        for name, weight in first.items()
        if not weight.identity.startswith(DOUBT)
        and not any(source.file in request_files for source in weight.sources)
        and all(name in o and (o[name].identity, o[name].digest) == (weight.identity, weight.digest) for o in rest)
    }


def plan_program(inits: Sequence[EventInit], folder: str, vary: Iterable[str], request_files: Sequence[str] = ()) -> Planned:
    """Derive the program, for paths relative to `folder`. Nothing out of `request_files` is static.

    `vary` are the fields of the event for any value of which init takes the same steps. Raises NotSliced with the reason why there
    is no program.
    """
    if whole := next((init.call.name for init in inits if init.call.event_whole), None):
        raise NotSliced(f"{whole} looks at all of the event")
    fields = event_fields(inits, vary)
    _refuse_other_skeletons(inits)
    _refuse_other_draws(inits)
    common = set.intersection(*(identities(init.records) for init in inits))
    of_requests = set.union(*(identities_from(init.records, request_files) for init in inits))
    static = {identity for identity in common - of_requests if not identity.startswith(DOUBT)}
    dynamic = sorted({weight.names[0] for weight in inits[0].weights} - static_weights(inits, request_files))
    for init in inits:
        refuse_host_reads(init.records, common)
    slices = []
    for init in inits:
        results = {weight.names[0]: weight.value for weight in init.weights if weight.names[0] in dynamic}
        slices.append(slice_back(init.call.event, init.records, results, static))
    aligned = Alignment(slices)
    files = RequestFiles(inits, fields, folder)
    named = {id(row): files.of_read(row) for row in aligned.reads}
    rows = list(aligned.reads)
    sliced = {read.ordinal for read in aligned.first.reads}
    for row in files.read_rows():
        if row[0].ordinal not in sliced:  # nothing is made of it, and yet it has to be there, as init found it
            rows.append([msgspec.structs.replace(row[0], value=1_000_000 + len(rows)), *row[1:]])
            named[id(rows[-1])] = files.of_read(row)
    reads = tuple(_read(row, named[id(row)]) for row in rows)
    atoms = [*fields.numbers, *files.numbers(), *_sizes(rows, reads)]
    taken: list[str] = []
    agreements: list[Agreement] = []

    def explain(values: tuple[Any, ...], where: str) -> Any:
        first = values[0]
        alike = all(type(value) is type(first) and value == first for value in values)
        found = explanations(values, atoms) if isinstance(first, int | float) and not isinstance(first, bool) else []
        if alike:
            if found and (isinstance(first, float) or abs(first) > 2):  # nearly anything explains a small whole number
                taken.append(found[0])
                agreements.append(Agreement(expressions=(repr(first), *found[:8])))
            return first
        if not found:
            cause = f"{where} takes {', '.join(map(repr, values[:3]))}, which nothing that the events name explains"
            numbers = all(type(value) in (int, float) for value in values)
            raise NotSliced(cause + (": give the number that differs as a field in every traced event" if numbers else ""))
        if len(found) > 1:
            agreements.append(Agreement(expressions=tuple(found[:8])))
        taken.append(found[0])
        return {"expression": found[0]}

    steps = []
    for index, step in enumerate(aligned.first.steps):
        positional, keywords = aligned.arguments(index, explain)
        steps.append(ProgramStep(operator=step.operator, arguments=positional, keywords=keywords, outputs=step.outputs))
    leaves, bases = _leaves(aligned.first, inits[0], set(dynamic))
    settled = files.files(taken)
    refuse_unused(fields, settled, [*taken, *(said for agreement in agreements for said in agreement.expressions)])
    program = Program(
        files=settled,
        reads=reads,
        leaves=leaves,
        steps=tuple(steps),
        results=aligned.first.results,
        event_equal=fields.equal,
        event_varied=_varied_types(fields.varied, aligned.first, steps),
        agreements=tuple(dict.fromkeys(agreements)),
    )
    return Planned(program=program, bases=bases, dynamic=tuple(dynamic))


# with a floating tensor these take a whole number and a fraction of the same value alike
_EITHER = ("aten.mul", "aten.mul_", "aten.div", "aten.div_", "aten.add", "aten.add_", "aten.sub", "aten.sub_")


def _varied_types(varied: dict[str, str], cut: Slice, steps: Sequence[ProgramStep]) -> dict[str, str]:
    """Numbers may be whole or fractions where they go into such operators alone, and else are of the traced type."""
    strict: set[str] = set()
    loose: set[str] = set()
    for step in steps:
        said = tuple(expressions_in([step.arguments, step.keywords]))
        keys = {key for key in varied if any(f"event[{key!r}]" in expression for expression in said)}
        operands = {cut.geometry[number].dtype for number in values_in(list(step.arguments))}
        either = step.operator.rpartition(".")[0] in _EITHER and operands <= {"float32", "float64", "float16", "bfloat16"}
        (loose if either else strict).update(keys)
    return {key: "number" if kind in ("int", "float") and key in loose - strict else kind for key, kind in varied.items()}


def _refuse_other_skeletons(inits: Sequence[EventInit]) -> None:
    first = inits[0]
    for init in inits:
        if not init.call.skeleton:
            raise NotSliced("the state can't be pickled")
        if init.call.skeleton != first.call.skeleton:
            raise NotSliced("what is not a tensor in the state (its structure, sizes, settings) differs between the events")
        if init.call.arguments != first.call.arguments:
            raise NotSliced(f"{init.call.name} was called with other arguments for another event")
        one, other = ({k: v for k, v in i.call.ambient.items() if k != "torch.rng"} for i in (first, init))
        if one != other:
            raise NotSliced("init leaves other process-wide settings for one event than for another")


def _refuse_other_draws(inits: Sequence[EventInit]) -> None:
    """Raise NotSliced where init draws as many random numbers as the event says: the generator would stand elsewhere after it.

    The generator's end states alone don't tell, since other sizes may take as many numbers.
    """
    draws = {
        repr([(r.operator, [made.shape for made in r.made]) for r in init.records if isinstance(r, TapeStep) and r.draws])
        for init in inits
    }
    if len({init.call.ambient.get("torch.rng") for init in inits}) > 1 or len(draws) > 1:
        raise NotSliced(
            "init draws random numbers otherwise for one event than for another: where it overwrites what it draws, "
            "build that on the meta device (for PEFT: low_cpu_mem_usage=True)"
        )


def _read(row: Sequence[TapeRead], file: str) -> ProgramRead:
    first = row[0]
    if any(read.operators for read in row):
        raise NotSliced(f"{first.key} is read by way of {', '.join(first.operators)}")
    if len({read.key for read in row}) > 1 or not first.key:
        raise NotSliced("a tensor is read under another name for another event")
    if len({(read.made.dtype, len(read.made.shape)) for read in row}) > 1:
        raise NotSliced(f"{first.key} has another dtype or number of dimensions for another event")
    sizes = [sorted(set(column)) for column in zip(*(read.made.shape for read in row), strict=True)]
    shape = tuple(column[0] if len(column) == 1 else tuple(column) for column in sizes)
    return ProgramRead(value=first.value, file=file, key=first.key, dtype=first.made.dtype, shape=shape)


def _sizes(rows: Sequence[Sequence[TapeRead]], reads: Sequence[ProgramRead]) -> list[Atom]:
    """The sizes that differ between events, each kind of them once."""
    found: dict[tuple[int, ...], Atom] = {}
    for row, read in zip(rows, reads, strict=True):
        for place, size in enumerate(read.shape):
            if isinstance(size, tuple):
                values = tuple(other.made.shape[place] for other in row)
                found.setdefault(values, Atom(expression=f"shape({read.value}, {place})", values=values))
    return list(found.values())


def _leaves(cut: Slice, init: EventInit, dynamic: set[str]) -> tuple[tuple[ProgramLeaf, ...], tuple[Base, ...]]:
    """Each leaf by the name of the template's entry: a static weight where it is one and stays so, else a base of the program's own."""
    storages = {cut.geometry[weight.value].storage: weight.names[0] for weight in init.weights}
    final = {weight.identity: weight.names[0] for weight in init.weights if weight.names[0] not in dynamic}
    written = {storage for step in cut.steps for storage, _ in step.identities}
    leaves: list[ProgramLeaf] = []
    bases: list[Base] = []
    for leaf in cut.leaves:
        if leaf.storage not in written and leaf.identity in final:
            name = final[leaf.identity]
        else:
            own = storages.get(leaf.storage, "")
            name = own if own in dynamic else f".base.{len(bases)}"
            bases.append(Base(name=name, identity=leaf.identity, dtype=leaf.made.dtype, shape=leaf.made.shape))
        made = leaf.made
        leaves.append(
            ProgramLeaf(value=leaf.value, name=name, dtype=made.dtype, shape=made.shape, stride=made.stride, offset=made.offset)
        )
    return tuple(leaves), tuple(bases)
