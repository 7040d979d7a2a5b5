"""Random numbers that init draws and drops (an initialisation that a checkpoint overwrites): just the generator's state tells of them.

Where that state depends on the event, since as many are drawn as the request's tensors are large, the program draws as many again.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tidalctl.artifacts.program import ProgramStep
from tidalctl.artifacts.tape import TapeStep, Value
from tidalctl.compiler.align import Explain
from tidalctl.compiler.slicing import NotSliced, geometry_of, whole

if TYPE_CHECKING:
    from tidalctl.compiler.program import EventInit

# operators that draw as many numbers whatever their other arguments are
_PLAIN = {"aten.uniform_.default": (0.0, 1.0), "aten.normal_.default": (0.0, 1.0)}


def draws_of(inits: "Sequence[EventInit]", explain: Explain) -> tuple[tuple[ProgramStep, ...], str]:
    """The steps that leave the generator as init leaves it, where that depends on the event; none where it does not.

    Where init seeds the generator, also the digest of the state to start from. Where it does not, the draws go on from wherever the
    generator stands, as init's would. Raises NotSliced.
    """
    columns = [[r for r in init.records if isinstance(r, TapeStep) and r.draws] for init in inits]
    # the end states may agree by chance, where other sizes take as many numbers
    if len({init.call.ambient.get("torch.rng") for init in inits}) == 1 and len({_said(column) for column in columns}) == 1:
        return (), ""
    if len({len(column) for column in columns}) > 1 or not columns[0]:
        raise NotSliced("init leaves the random generator otherwise for one event than for another")
    geometries = [geometry_of(init.records) for init in inits]
    rows = list(zip(*columns, strict=True))
    first = 0
    for place in range(1, len(rows)):
        reseeded = [now.draws != before.drawn for now, before in zip(rows[place], rows[place - 1], strict=True)]
        if any(reseeded):
            first = place
    seeded = rows[first][0].seeded
    if seeded and len({step.draws for step in rows[first]}) > 1:
        raise NotSliced("init seeds the random generator otherwise for one event than for another")
    found: list[ProgramStep] = []
    for place in range(first, len(rows)):
        found += _drawing(rows[place], geometries, explain, -1 - place)
    return tuple(found), rows[first][0].draws if seeded else ""


def _said(column: Sequence[TapeStep]) -> str:
    """Which operators draw, with what arguments and into what sizes."""
    return repr([(step.operator, step.arguments, step.keywords, [made.shape for made in step.made]) for step in column])


def _drawing(
    row: Sequence[TapeStep], geometries: Sequence[dict[int, Value]], explain: Explain, number: int
) -> tuple[ProgramStep, ProgramStep]:
    """Memory of the same sizes, and the operator on it."""
    name = row[0].operator
    if len({step.operator for step in row}) > 1 or name not in _PLAIN:
        raise NotSliced(f"init draws random numbers by {name}, as many as the event says")
    targets = [geometry[step.writes[0]] for geometry, step in zip(geometries, row, strict=True)]
    if not all(whole(made) for made in targets) or len({(made.dtype, len(made.shape)) for made in targets}) > 1:
        raise NotSliced(f"init draws random numbers by {name} into a part of a tensor")
    sizes: list[Any] = [explain(values, name) for values in zip(*(made.shape for made in targets), strict=True)]
    empty = ProgramStep(
        operator="aten.empty.memory_format",
        arguments=(sizes,),
        keywords={"dtype": {"dtype": targets[0].dtype}},
        outputs=(number,),
    )
    return empty, ProgramStep(operator=name, arguments=({"value": number}, *_PLAIN[name]), keywords={}, outputs=(number,))
