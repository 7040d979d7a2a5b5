"""What a program must be for a script to be right: operators that torch knows here, no random draws, no storage reached in two ways."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

from tidalctl.compiler.dynamic.program import Program, ProgramStep
from tidalctl.compiler.script.quoting import values_in


@cache
def overload(name: str) -> Any:
    """Return an operator by its name. Raise ValueError where torch has none of it, or a script can't call it."""
    import torch

    found: Any = torch.ops
    try:
        for part in name.split("."):
            found = getattr(found, part)
        found._schema  # noqa: B018
    except (AttributeError, RuntimeError):
        raise ValueError(f"torch has no operator {name}") from None
    if torch.Tag.inplace_view in found.tags:
        raise ValueError(f"{name} changes the shape of a tensor in place")
    if torch.Tag.nondeterministic_seeded in found.tags:
        raise ValueError(f"{name} draws random numbers")
    return found


def checked_storages(program: Program) -> dict[int, int]:
    """Return the storage of each value of a program, numbered by the first value that lies in it.

    Raise ValueError where a value is used before it is made, or where a storage is reached in two ways and is written to or kept:
    a program does not say whether the write shows in both.
    """
    sources = {*(read.value for read in program.reads), *(leaf.value for leaf in program.leaves)}
    storage = {value: value for value in sources}
    written: set[int] = set()
    for step in program.steps:
        given = {value for _, argument in _bound(step) for value in values_in(argument)}
        if unknown := given - storage.keys():
            raise ValueError(f"{step.operator} uses value {min(unknown)} before it is made")
        written.update(storage[value] for value in _written(step))
        shared = list(_shared(step))
        for value in step.outputs:
            # a step with several aliased arguments (an out= form) writes to them, so that its outputs are among them
            storage.setdefault(value, storage[shared[0]] if shared else value)
    if unknown := set(program.results.values()) - storage.keys():
        raise ValueError(f"value {min(unknown)} is a weight, and never made")
    kept = {storage[value] for value in program.results.values()}  # a handler may write to these
    _refuse_shared_leaves(program, written | kept)
    _refuse_shared_reads(program, written, kept)
    return storage


def _refuse_shared_leaves(program: Program, changing: set[int]) -> None:
    looks: dict[str, tuple[Any, ...]] = {}
    for leaf in program.leaves:
        own = leaf.value if leaf.value in changing else None
        look = (leaf.dtype, leaf.shape, leaf.stride, leaf.offset, own)
        if looks.setdefault(leaf.name, look) != look:
            raise ValueError(f"{leaf.name} is used in two ways")


def _refuse_shared_reads(program: Program, written: set[int], kept: set[int]) -> None:
    torch_files = {file.name for file in program.files if file.kind == "torch"}
    # the tensors of a torch file may share storages
    spoiled = {read.file for read in program.reads if read.value in written and read.file in torch_files}
    places = Counter((read.file, read.key) for read in program.reads)
    for read in program.reads:
        changes = read.value in written | kept or read.file in spoiled
        if changes and places[read.file, read.key] > 1:
            raise ValueError(f"{read.key} is read twice, and written to or kept")


def _bound(step: ProgramStep) -> Iterator[tuple[Any, Any]]:
    """Yield (what the schema says, what is given) for each argument."""
    declared = overload(step.operator)._schema.arguments
    yield from zip(declared, step.arguments, strict=False)
    named = {argument.name: argument for argument in declared}
    for name, given in step.keywords.items():
        if name not in named:
            raise ValueError(f"{step.operator} has no argument {name}")
        yield named[name], given


def _written(step: ProgramStep) -> Iterator[int]:
    """Yield the values that a step writes to."""
    for declared, given in _bound(step):
        if declared.alias_info is not None and declared.alias_info.is_write:
            yield from values_in(given)


def _shared(step: ProgramStep) -> Iterator[int]:
    """Yield the values whose storages a step's outputs may lie in."""
    undeclared = step.operator == "aten._unsafe_view.default"  # a view whose schema says that it is none
    if undeclared or any(result.alias_info is not None for result in overload(step.operator)._schema.returns):
        for declared, given in _bound(step):
            if undeclared or declared.alias_info is not None:
                yield from values_in(given)
