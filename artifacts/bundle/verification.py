"""Every check of a bundle's files, all differences collected: what `verify` knows before it runs anything."""

import hashlib
import os
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from typing import Any

from tidalctl.artifacts.bundle import MANIFEST
from tidalctl.artifacts.bundle.directory import CHUNK, open_bundle, unlisted_files
from tidalctl.artifacts.bundle.manifest import BundleWeight, Manifest, decode_manifest, encode_manifest
from tidalctl.artifacts.bundle.weights_file import ALIGNMENT, DTYPES, PAD, check_header, kept_address
from tidalctl.artifacts.errors import ArtifactError, Corrupt, PathEscapes, Truncated
from tidalctl.artifacts.hashing import weight_hasher

Advance = Callable[[int], None]
UNLISTED = "is not in the manifest"
DIGESTS: dict[str, Callable[[], Any]] = {
    "sha256": hashlib.sha256,
    "xxh3": weight_hasher,
}  # of a weight, as the manifest names them


class Checked:
    """What was checked, in order, and each difference that was found. `manifest` is None where even that one can't be read."""

    def __init__(self) -> None:
        self.manifest: Manifest | None = None
        self.checks: list[dict[str, Any]] = []
        self.differences: list[dict[str, str]] = []

    def add(self, what: str, found: list[dict[str, str]], nbytes: int = 0) -> None:
        """Note a check, and what it found; nothing found means that it passed."""
        self.checks.append({"what": what, "ok": not found, "nbytes": nbytes})
        self.differences += found


def _difference(where: str, what: str) -> dict[str, str]:
    return {"where": where, "what": what}


def check_bundle(path: Path, progress: Callable[[int, int], None] | None = None) -> Checked:
    """Check a bundle and collect what differs. `progress` is told how many bytes of how many were read.

    Raises NotAnArtifact or NewerSchema for what is no bundle at all, or none that this tidalctl reads.
    """
    checked = Checked()
    try:
        checked.manifest = open_bundle(path)
    except (Corrupt, Truncated, PathEscapes):
        checked.manifest = _damaged_manifest(path, checked)
    manifest = checked.manifest
    if manifest is None:
        return checked
    written = encode_manifest(manifest) == (path / MANIFEST).read_bytes()
    other = [] if written else [_difference(MANIFEST, "says what compile wrote, but in other bytes (spaces, line ends?)")]
    checked.add(f"{MANIFEST}, digest {manifest.digest}", other)
    read, total = 0, sum(stored.size for stored in manifest.files.values())

    def advance(nbytes: int) -> None:
        nonlocal read
        read += nbytes
        if progress is not None:
            progress(read, total)

    weights_files = _weights_files(manifest)
    plain_files = [name for name in sorted(manifest.files) if name not in weights_files]
    nbytes = sum(manifest.files[name].size for name in plain_files)
    found = [difference for name in plain_files for difference in _check_file(path, manifest, name, [], advance)]
    checked.add(f"{len(plain_files)} files of code and state, sha256 of each", found, nbytes)
    for name in weights_files:
        weights = sorted((w for w in manifest.weights if w.file == name), key=lambda w: w.offset)
        found = _check_file(path, manifest, name, weights, advance)
        if not any(difference["what"].startswith("is missing") for difference in found):
            found += _check_placements(path, manifest, name)
        what = f"{name}: {len(weights)} weights, offsets, alignment, xxh3 and sha256 of each"
        checked.add(what, found, manifest.files[name].size)
    found = [_difference(name, UNLISTED) for name in unlisted_files(path, manifest)]
    checked.add("no file that the manifest does not list", found)
    return checked


def _damaged_manifest(path: Path, checked: Checked) -> Manifest | None:
    """The manifest of a bundle some of whose files differ; where it is itself damaged, that is the difference."""
    try:
        return decode_manifest((path / MANIFEST).read_bytes(), path / MANIFEST)
    except (Corrupt, Truncated, PathEscapes) as error:
        checked.add(MANIFEST, [_difference(MANIFEST, error.message)])
        return None


def _weights_files(manifest: Manifest) -> list[str]:
    """The files that weights lie in, and those that would hold them if there were any."""
    named = {weight.file for weight in manifest.weights}
    return sorted(named | {name for name in manifest.files if name.endswith(".safetensors") and "/" not in name})


def _check_file(
    path: Path, manifest: Manifest, name: str, weights: list[BundleWeight], advance: Advance
) -> list[dict[str, str]]:
    """Size, place and sha256 of one file, and both digests of each weight in it."""
    file, stated = path / name, manifest.files[name]
    try:
        if not file.is_file():
            return [_difference(name, "is missing" if not file.exists() else "is not a file")]
        if not file.resolve().is_relative_to(path.resolve()):
            return [_difference(name, "is a link that leads out of the bundle")]
        size = file.stat().st_size
        whole, parts = _digests(file, weights, advance)
    except OSError as error:
        return [_difference(name, f"can't be read: {error.strerror}")]
    found = []
    if size != stated.size:
        found.append(_difference(name, f"has {size} bytes, {stated.size} were written"))
    elif whole != stated.sha256:
        found.append(_difference(name, "is not what compile wrote (its sha256 differs)"))
    for weight, part in zip(weights, parts, strict=True):
        differs = [kind for kind in DIGESTS if part[kind] != getattr(weight, kind)]
        if differs:
            what = f"weight {weight.name} is not what compile wrote (its {' and '.join(differs)} differ{'s' * (len(differs) == 1)})"
            found.append(_difference(name, what))
    return found


def _digests(file: Path, weights: list[BundleWeight], advance: Advance) -> tuple[str, list[dict[str, str]]]:
    """Return the sha256 of a file, and the digests of each weight in it."""
    with open(file, "rb", buffering=0) as stream:
        whole = _digest(stream, 0, os.fstat(stream.fileno()).st_size, {"sha256": hashlib.sha256}, advance)["sha256"]
        return whole, [_digest(stream, weight.offset, weight.nbytes, DIGESTS) for weight in weights]


def _digest(
    stream: RawIOBase, begin: int, nbytes: int, kinds: dict[str, Callable[[], Any]], advance: Advance = lambda _: None
) -> dict[str, str]:
    digests = {kind: new() for kind, new in kinds.items()}
    stream.seek(begin)
    while nbytes and (chunk := stream.read(min(CHUNK, nbytes))):
        for digest in digests.values():
            digest.update(chunk)
        nbytes -= len(chunk)
        advance(len(chunk))
    return {kind: digest.hexdigest() for kind, digest in digests.items()}


def _check_placements(path: Path, manifest: Manifest, name: str) -> list[dict[str, str]]:
    """Whether the file's own header says of each weight what the manifest says: name, dtype, shape, place, order."""
    try:
        header = check_header(path / name)
    except ArtifactError as error:
        return [_difference(name, error.message.removeprefix(f"{path / name}").lstrip(": "))]
    with open(path / name, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    wrong: list[str] = []
    weights = [weight for weight in manifest.weights if weight.file == name]
    for weight in weights:
        placed = header.get(weight.name)
        if placed is None:
            wrong.append(f"its header does not name the weight {weight.name}")
            continue
        begin, end = placed["data_offsets"]
        if (start + begin, end - begin) != (weight.offset, weight.nbytes):
            stated = f"{weight.nbytes} bytes at {weight.offset}"
            wrong.append(f"weight {weight.name} has {end - begin} bytes at {start + begin}; the manifest says {stated}")
        code = DTYPES.get(weight.dtype, ("", 0))[0]
        as_it_is = placed["dtype"] == code and tuple(placed["shape"]) == weight.shape
        if not as_it_is and (placed["dtype"], placed["shape"]) != ("U8", [weight.nbytes]):
            wrong.append(f"weight {weight.name} has another dtype or shape than the manifest says")
        if (weight.offset - weight.address) % ALIGNMENT or weight.address != kept_address(weight.dtype, weight.address):
            aside = f"{weight.address} bytes behind" if weight.address else "at"
            wrong.append(f"weight {weight.name} starts at {weight.offset}, not {aside} a multiple of {ALIGNMENT}")
    names = [key for key in header if key != "__metadata__" and not key.startswith(PAD)]
    listed = {weight.name for weight in weights}
    wrong += [f"its header names {key}, which the manifest does not list" for key in names if key not in listed]
    if not wrong and names != [weight.name for weight in weights]:
        wrong.append("its weights are in another order than the manifest's")
    return [_difference(name, what) for what in wrong]
