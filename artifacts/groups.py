"""Weights in groups: neighbours in the file, which are brought in, checked and released together."""

from collections.abc import Iterable, Iterator, Sequence

from tidalctl.artifacts.manifest import BundleWeight
from tidalctl.artifacts.records import Record

GROUP_SIZE = 16 * 2**20  # bytes: large enough that a call costs nothing beside it, small enough that compute soon goes on


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

    Used and unused weights never share a group, nor do those of two devices. A weight is never cut. Empty ones are in none.
    """
    files: dict[str, list[BundleWeight]] = {}
    for weight in weights:
        if weight.nbytes:
            files.setdefault(weight.file, []).append(weight)
    runs = [run for found in files.values() for run in _runs(sorted(found, key=lambda weight: weight.offset), size)]
    runs.sort(key=lambda run: min((w.first_use for w in run if w.first_use is not None), default=len(runs) + 2**62))
    return tuple(_group(index, run) for index, run in enumerate(runs))


def _runs(weights: Sequence[BundleWeight], size: int) -> Iterator[list[BundleWeight]]:
    run: list[BundleWeight] = []
    for weight in weights:
        full = run and weight.offset + weight.nbytes - run[0].offset > size
        other = run and (weight.first_use is None, weight.device) != (run[0].first_use is None, run[0].device)
        if full or other:
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
