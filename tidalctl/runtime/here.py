"""`verify --here`: whether a start in this place would use the bundle's state, by the same comparisons that a start makes."""

import sys
from collections.abc import Iterator
from pathlib import Path

from tidalctl.artifacts import fingerprint as fp
from tidalctl.artifacts.bundle.manifest import CODE, Manifest, NeededFile
from tidalctl.artifacts.bundle.provenance import home_of, provenance_fields
from tidalctl.artifacts.cause import Reason
from tidalctl.artifacts.errors import WrongFingerprint
from tidalctl.artifacts.records import Record
from tidalctl.runtime import conditions
from tidalctl.runtime.needed_files import missing_files
from tidalctl.runtime.template import Origin


class Here(Record, frozen=True):
    """What is known before the function is imported.

    Attributes:
        strategy: How a start makes the state if nothing differs.
        refused: Why no start is possible here, not even with init running; empty if one is.
        mismatches: All reasons for which init would run.
        checked_at_init: In words, the conditions that only a start can compare.
        missing: Files that a start looks for and that are not here.
    """

    strategy: str
    refused: tuple[str, ...]
    mismatches: tuple[Reason, ...]
    checked_at_init: tuple[str, ...]
    missing: tuple[NeededFile, ...]


def look_here(bundle: Path, manifest: Manifest, argv: tuple[str, ...]) -> Here:
    """Compare this process with a bundle's conditions. Imports torch, for the CPU and the device as it sees them."""
    roots = [str(bundle / CODE)]
    if (home := home_of(provenance_fields(bundle, Origin).root, bundle, manifest)) is not None:
        roots.append(str(home))
    refused: list[str] = []
    changed = fp.changed_distributions(manifest.fingerprint, sys.path)

    def collect(mismatches: Iterator[Reason]) -> Iterator[Reason]:
        try:
            yield from mismatches
        except WrongFingerprint as error:
            refused.append(error.message)
        except ImportError:  # no torch here: one of the packages that differ
            return

    def python() -> Iterator[Reason]:
        fp.refuse_other_python(manifest.fingerprint)
        yield from ()

    checks = (
        python(),
        conditions.process_mismatches(manifest, argv, changed, lambda: roots),
        conditions.machine_mismatches(manifest),
    )
    found = [reason for check in checks for reason in collect(check)]
    init_runs = bool(found) or manifest.strategy == "replay"
    return Here(
        strategy=manifest.strategy,
        refused=tuple(refused),
        mismatches=tuple(dict.fromkeys(found)),
        checked_at_init=tuple(conditions.checked_at_init(manifest)) if manifest.strategy != "eager" else (),
        missing=tuple(missing_files(manifest, roots, init_runs=init_runs)),
    )
