"""Compares the facts of two artifacts: one function a subject, from two records to the differences, the costliest first."""

from collections.abc import Iterator, Mapping
from typing import Literal

from tidalctl.artifacts.records import Record
from tidalctl.diff.facts import Facts, ImportedModule

Sign = Literal["added", "removed", "changed"]
SMALL = 0.1  # of a time, below which a change of it is noise
LEAST_S = 0.02  # seconds, likewise
SHOWN = 3  # names in one line


class Difference(Record, frozen=True):
    """One difference. `seconds` and `bytes`: how much more the second artifact takes than the first; None where unknown."""

    subject: str
    sign: Sign
    text: str
    seconds: float | None = None
    bytes: int | None = None


def differences(old: Facts, new: Facts) -> list[Difference]:
    """Return what the second has otherwise than the first."""
    passes = (_function, _strategy, _imports, _weights, _kernels, _pins, _files, _times)
    return [found for one in passes for found in sorted(one(old, new), key=lambda found: -abs(found.seconds or 0.0))]


def _function(old: Facts, new: Facts) -> Iterator[Difference]:
    if old.function != new.function:
        yield Difference("function", "changed", f"{old.function} → {new.function}")


def _strategy(old: Facts, new: Facts) -> Iterator[Difference]:
    if old.strategy != new.strategy:
        yield Difference("strategy", "changed", f"{old.strategy or 'none'} → {new.strategy or 'none'}")
    for cause in new.causes:
        if cause not in old.causes:
            yield Difference("cause", "added", cause)
    for cause in old.causes:
        if cause not in new.causes:
            yield Difference("cause", "removed", cause)


def _imports(old: Facts, new: Facts) -> Iterator[Difference]:
    yield from _packages(new.modules, old.modules, "added", 1.0)
    yield from _packages(old.modules, new.modules, "removed", -1.0)


def _packages(
    here: Mapping[str, ImportedModule], there: Mapping[str, ImportedModule], sign: Sign, factor: float
) -> Iterator[Difference]:
    """Yield the modules that are here and not there, by package: how many, their seconds, and who imports the first of them."""
    groups: dict[str, list[str]] = {}
    for name in here:
        if name not in there:
            groups.setdefault(name.partition(".")[0], []).append(name)
    for package, names in groups.items():
        known = [seconds for name in names if (seconds := here[name].self_s) is not None]
        importer = next((here[name].importer for name in names if here[name].importer.partition(".")[0] != package), "")
        some = package in there
        what = f"{package}: {len(names)}{' more' if some and sign == 'added' else ''} modules" if len(names) > 1 else names[0]
        by = f", imported by {importer}" if importer else ""
        yield Difference("import", sign, f"{what}{by}", seconds=factor * sum(known) if known else None)


def _weights(old: Facts, new: Facts) -> Iterator[Difference]:
    for sign, here, there, factor in (("added", new, old, 1), ("removed", old, new, -1)):
        names = [name for name in here.weights if name not in there.weights]
        if names:
            size = sum(here.weights[name].nbytes for name in names)
            yield Difference("weights", sign, f"{len(names)}: {_some(names)}", bytes=factor * size)  # type: ignore[arg-type]
    shared = [name for name in new.weights if name in old.weights]
    for what in ("dtype", "shape", "content"):
        names = [name for name in shared if getattr(old.weights[name], what) != getattr(new.weights[name], what)]
        if names:
            size = sum(new.weights[name].nbytes - old.weights[name].nbytes for name in names)
            yield Difference("weights", "changed", f"{what} of {len(names)}: {_some(names)}", bytes=size)
    before, after = (_order(facts, shared) for facts in (old, new))
    if before != after:
        first = next(name for name, other in zip(after, before, strict=False) if name != other) if after and before else ""
        yield Difference("weights", "changed", f"the order of first use{f', from {first} on' if first else ''}")


def _order(facts: Facts, names: list[str]) -> list[str]:
    used = [(place, name) for name in names if (place := facts.weights[name].place) is not None]
    return [name for _, name in sorted(used)]


def _kernels(old: Facts, new: Facts) -> Iterator[Difference]:
    for sign, here, there in (("added", new, old), ("removed", old, new)):
        if names := sorted({*here.kernels} - {*there.kernels}):
            yield Difference("kernels", sign, f"{len(names)}: {_some(names)}")  # type: ignore[arg-type]


def _pins(old: Facts, new: Facts) -> Iterator[Difference]:
    for name in sorted({*old.pins, *new.pins}):
        before, after = old.pins.get(name), new.pins.get(name)
        if before == after:
            continue
        sign: Sign = "added" if before is None else "removed" if after is None else "changed"
        secret = name.startswith("variable ")  # whose values are digests
        text = name if secret or sign != "changed" else f"{name}: {before} → {after}"
        yield Difference("pinned by", sign, text)


def _files(old: Facts, new: Facts) -> Iterator[Difference]:
    for name in sorted({*old.files, *new.files}):
        before, after = old.files.get(name), new.files.get(name)
        if before != after:
            sign: Sign = "added" if before is None else "removed" if after is None else "changed"
            yield Difference("file", sign, name, bytes=(after or 0) - (before or 0))


def _times(old: Facts, new: Facts) -> Iterator[Difference]:
    for name, after in new.times.items():
        before = old.times.get(name)
        if before is not None and abs(after - before) > max(LEAST_S, SMALL * before):
            yield Difference("time", "changed", f"{name}: {before:.3f} s → {after:.3f} s", seconds=after - before)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
