"""From the tapes of several events to the program that makes the weights in which they differ, or the reason why there is none."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tidalctl.artifacts.cause import Cause
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace.tape import DOUBT, TapeRead, TapeStep
from tidalctl.compiler.dynamic.alignment import Alignment
from tidalctl.compiler.dynamic.expressions import Atom, explanations
from tidalctl.compiler.dynamic.program import Program, ProgramLeaf, ProgramRead, ProgramStep
from tidalctl.compiler.dynamic.recorded_init import EventInit
from tidalctl.compiler.dynamic.request_files import RequestFiles, event_fields, refuse_unused
from tidalctl.compiler.dynamic.slicing import NotSliced, Slice, identities, identities_from, refuse_host_reads, slice_back


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
        raise NotSliced(Cause.EVENT_READ_WHOLE, init=whole)
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
    agreements: list[tuple[str, ...]] = []

    def explain(values: tuple[Any, ...], where: str) -> Any:
        first = values[0]
        alike = all(type(value) is type(first) and value == first for value in values)
        found = explanations(values, atoms) if isinstance(first, int | float) and not isinstance(first, bool) else []
        if alike:
            if found and (isinstance(first, float) or abs(first) > 2):  # nearly anything explains a small whole number
                taken.append(found[0])
                agreements.append((repr(first), *found[:8]))
            return first
        if not found:
            numbers = all(type(value) in (int, float) for value in values)
            shown = f"what {where} takes ({', '.join(map(repr, values[:3]))})"
            raise NotSliced(Cause.NOT_EXPLAINED if numbers else Cause.STEPS_DIFFER, what=shown)
        taken.append(found[0])
        agreements.append(tuple(found[:8]))
        return {"expression": found[0]}

    steps = []
    for index, step in enumerate(aligned.first.steps):
        positional, keywords = aligned.arguments(index, explain)
        steps.append(ProgramStep(operator=step.operator, arguments=positional, keywords=keywords, outputs=step.outputs))
    leaves, bases = _leaves(aligned.first, inits[0], set(dynamic))
    _refuse_shared(aligned.first, reads, leaves)
    settled = files.files(taken)
    refuse_unused(fields, settled, [expression for expressions in agreements for expression in expressions])
    program = Program(
        files=settled,
        reads=reads,
        leaves=leaves,
        steps=tuple(steps),
        results=aligned.first.results,
        event_equal=fields.equal,
        event_varied=fields.varied,
        agreements=tuple(dict.fromkeys(agreements)),
    )
    return Planned(program=program, bases=bases, dynamic=tuple(dynamic))


def _refuse_shared(cut: Slice, reads: Sequence[ProgramRead], leaves: Sequence[ProgramLeaf]) -> None:
    """Raise NotSliced where a tensor is taken twice, and is written to or kept: whether a write shows in both, a program can't say."""
    changing = {cut.geometry[value].storage for value in cut.results.values()}  # a handler may write to what is kept
    changing |= {storage for step in cut.steps for storage, _ in step.identities}
    own = {value for value, made in cut.geometry.items() if made.storage in changing}
    spoiled = {read.file for read in reads if read.value in own}  # whose tensors may share memory
    times = Counter((read.file, read.key) for read in reads)
    twice = [key for (file, key), count in times.items() if count > 1 and file in spoiled]
    looks: dict[str, tuple[Any, ...]] = {}
    for leaf in leaves:
        look = (leaf.dtype, leaf.shape, leaf.stride, leaf.offset, leaf.value if leaf.value in own else None)
        if looks.setdefault(leaf.name, look) != look:
            twice.append(leaf.name)
    if twice:
        raise NotSliced(Cause.NOT_IN_A_SCRIPT, what=f"it takes {twice[0]} twice, and writes to it or keeps it")


def _refuse_other_skeletons(inits: Sequence[EventInit]) -> None:
    first = inits[0]
    for init in inits:
        if init.call.skeleton != first.call.skeleton:
            raise NotSliced(Cause.STRUCTURE_DIFFERS, what="what the state holds besides tensors, or how it is built")
        if init.call.arguments != first.call.arguments:
            raise NotSliced(Cause.STRUCTURE_DIFFERS, what=f"the arguments of {init.call.name}")
        one, other = ({k: v for k, v in i.call.ambient.items() if k != "torch.rng"} for i in (first, init))
        if one != other:
            raise NotSliced(Cause.STRUCTURE_DIFFERS, what="the process-wide settings that init leaves")


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
            Cause.STEPS_DIFFER,
            what="the random numbers that it draws; where it overwrites them, "
            "build that on the meta device (for PEFT: low_cpu_mem_usage=True)",
        )


def _read(row: Sequence[TapeRead], file: str) -> ProgramRead:
    first = row[0]
    if any(read.operators for read in row):
        raise NotSliced(Cause.NOT_IN_A_SCRIPT, what=f"{first.key} is read by way of {', '.join(first.operators)}")
    if len({read.key for read in row}) > 1 or not first.key:
        raise NotSliced(Cause.STEPS_DIFFER, what="the names of the tensors that it reads")
    if len({(read.made.dtype, len(read.made.shape)) for read in row}) > 1:
        raise NotSliced(Cause.STEPS_DIFFER, what=f"the dtype, or number of dimensions, of {first.key}")
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
                found.setdefault(values, Atom(f"files[{read.file!r}][{read.key!r}].shape[{place}]", values))
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
