"""Weights in groups: neighbours in the file, which are brought in, checked and released together."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from tidalctl.artifacts.bundle.manifest import BundleWeight
from tidalctl.artifacts.records import Record

GROUP_SIZE = 16 * 2**20  # bytes: large enough that a call costs nothing beside it, small enough that compute soon goes on
NEVER = 2**62  # after every first use


class Group(Record, frozen=True):
    """A range of a weights file, from `begin` to `end` in bytes. `first_use` is the least place of its weights in the access order."""

    index: int
    file: str
    begin: int
    end: int
    weights: tuple[BundleWeight, ...]
    first_use: int | None

    @property
    def nbytes(self) -> int:
        return self.end - self.begin

    @property
    def device(self) -> str:
        """Where its weights live in the state, as torch names it."""
        return self.weights[0].device


def plan_groups(weights: Iterable[BundleWeight], size: int = GROUP_SIZE) -> tuple[Group, ...]:
    """Groups of about `size` bytes in the order of their first use; what the trace saw no use of comes last, in the files' order.

    What it saw no use of but lies in a module of which it used another weight comes right after that one, since the module waits for
    all that it owns. Weights of two of these three kinds, or of two devices, never share a group. A weight is never cut. Empty ones are
    in none.
    """
    files: dict[str, list[BundleWeight]] = {}
    owners: dict[str, int] = {}  # modules by their first use
    for weight in weights:
        if weight.nbytes:
            files.setdefault(weight.file, []).append(weight)
        if weight.first_use is not None and (owner := _owner(weight)):
            owners[owner] = min(weight.first_use, owners.get(owner, weight.first_use))

    def turn(weight: BundleWeight) -> tuple[int, bool]:
        unused = weight.first_use is None
        return (owners.get(_owner(weight), NEVER) if unused else weight.first_use or 0), unused

    def kind(weight: BundleWeight) -> tuple[bool, bool, str]:
        place, unused = turn(weight)
        return unused, place == NEVER, weight.device

    runs = [run for found in files.values() for run in _runs(sorted(found, key=lambda weight: weight.offset), size, kind)]
    runs.sort(key=lambda run: min(map(turn, run)))
    return tuple(_group(index, run) for index, run in enumerate(runs))


def _owner(weight: BundleWeight) -> str:
    """The module that a weight lies in, as its name tells."""
    return weight.name.rpartition(".")[0]


def _runs(
    weights: Sequence[BundleWeight], size: int, kind: Callable[[BundleWeight], tuple[bool, bool, str]]
) -> Iterator[list[BundleWeight]]:
    run: list[BundleWeight] = []
    for weight in weights:
        if run and (weight.offset + weight.nbytes - run[0].offset > size or kind(weight) != kind(run[0])):
            yield run
            run = []
        run.append(weight)
    if run:
        yield run


def _group(index: int, run: Sequence[BundleWeight]) -> Group:
    uses = [weight.first_use for weight in run if weight.first_use is not None]
    return Group(
        index=index,
        file=run[0].file,
        begin=run[0].offset,
        end=max(weight.offset + weight.nbytes for weight in run),
        weights=tuple(run),
        first_use=min(uses, default=None),
    )
