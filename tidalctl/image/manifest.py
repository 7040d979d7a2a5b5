"""The manifest of a process image: what it consists of, and what must be as it was when it was made.

An image lies in the folder `image` of its bundle, outside of the bundle's digest: it can't be the same bytes twice. The manifest is
plain JSON, as each start reads it.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from tidalctl.artifacts.bundle import IMAGE_FOLDER, MANIFEST

IMAGE_MANIFEST = "image.json"
SCHEMA = 1


class ImageManifest(NamedTuple):
    """What an image is.

    Attributes:
        path: Where the bundle lay, links resolved.
        bundle: sha256 of the bundle's manifest.
        pid: Which the process had, and has in its own namespace.
        pipe: Inode of the pipe that it waits on.
        files: Size and BLAKE3 of each file of the image.
        reads: Environment variables that the function's imports read.
        environ: sha256 of the variables that they were imported with.
        machine: See `describe_machine`.
        stamps: Size and time of each file that the process has mapped or open, or that its imports read.
        user: Whose process it was, where the imports asked for that; -1 where they did not.
        touched: Parts of its mapped files that the process has touched: offset and length.
        groups: The groups of weights, as the bundle is read: see `checked_ahead`.
        ready_s: Seconds from the start of a process until a start from it had its state, in the proof; None where there was none.
    """

    path: str
    bundle: str
    pid: int
    pipe: int
    files: dict[str, list[Any]]
    reads: list[str]
    environ: dict[str, str]
    machine: dict[str, str]
    stamps: dict[str, list[int]]
    user: int
    touched: dict[str, list[tuple[int, int]]]
    groups: list[list[Any]]
    ready_s: float | None = None


class NoImage(Exception):
    """There is no image, or its manifest is none that this tidalctl reads. `found` says whether there is something."""

    def __init__(self, text: str, *, found: bool) -> None:
        self.found = found
        super().__init__(text)


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def bundle_digest(bundle: Path) -> str:
    """Return the digest of the manifest that lies in a bundle."""
    return hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()


def write_manifest(folder: Path, manifest: ImageManifest) -> None:
    """Write it in one step, with a digest over all the rest. One that is there keeps its mode."""
    body = json.dumps({"format": "tidalctl image", "schema": SCHEMA, **manifest._asdict()}, sort_keys=True)
    path, partial = folder / IMAGE_MANIFEST, folder / f".{IMAGE_MANIFEST}.partial"
    partial.write_text(json.dumps({"digest": text_digest(body), "image": body}), encoding="utf-8")
    if path.exists():
        partial.chmod(path.stat().st_mode & 0o777)
    partial.replace(path)


def note_start(bundle: Path, ready_s: float | None) -> None:
    """Write down how long a start from a bundle's image took to have its state."""
    write_manifest(bundle / IMAGE_FOLDER, read_manifest(bundle)._replace(ready_s=ready_s))


def _is_sound(manifest: ImageManifest) -> bool:
    """Whether all fields are of the kinds that are written. What they say is compared elsewhere."""
    texts = [manifest.path, manifest.bundle, *manifest.reads]
    tables = (manifest.files, manifest.environ, manifest.machine, manifest.stamps, manifest.touched)
    if not all(isinstance(table, dict) for table in tables) or not isinstance(manifest.reads, list):
        return False
    texts += [*manifest.environ.values(), *manifest.machine.values(), *(digest for _, digest in manifest.files.values())]
    numbers = [manifest.pid, manifest.pipe, manifest.user, *(size for size, _ in manifest.files.values())]
    numbers += [number for stamp in manifest.stamps.values() for number in stamp]
    numbers += [number for parts in manifest.touched.values() for part in parts for number in part]
    paths = [manifest.path, *manifest.stamps, *manifest.touched, *manifest.files]
    numbers += [
        number for _, begin, end, weights in manifest.groups for number in (begin, end, *(n for w in weights for n in w[:2]))
    ]
    return (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(number, int) and -1 <= number < 2**62 for number in numbers)
        and not any("\0" in path for path in paths)
        and manifest.pid > 1
    )


def read_manifest(bundle: Path) -> ImageManifest:
    """Return the manifest of a bundle's image. Raises NoImage, or PermissionError."""
    try:
        outer = json.loads((bundle / IMAGE_FOLDER / IMAGE_MANIFEST).read_bytes())
        body = outer["image"]
        if text_digest(body) != outer["digest"]:
            raise NoImage(f"{IMAGE_MANIFEST} is not what was written", found=True)
        fields = json.loads(body)
        if fields.pop("format") != "tidalctl image" or fields.pop("schema") != SCHEMA:
            raise NoImage(f"{IMAGE_MANIFEST} has another schema than this tidalctl reads", found=True)
        manifest = ImageManifest(**fields)
        if not _is_sound(manifest):
            raise NoImage(f"{IMAGE_MANIFEST} holds what tidalctl never writes", found=True)
        return manifest
    except (FileNotFoundError, NotADirectoryError):
        raise NoImage(f"there is no {IMAGE_FOLDER}/{IMAGE_MANIFEST}", found=os.path.isdir(bundle / IMAGE_FOLDER)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoImage(f"{IMAGE_MANIFEST} can't be read: {error}", found=True) from None
