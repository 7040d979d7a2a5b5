"""The bundle's directory: opened with its manifest, checked against it, and put in its place in one step."""

import ctypes
import errno
import hashlib
import os
import shutil
import stat
from pathlib import Path

from tidalctl.artifacts.bundle import IMAGE_FOLDER, MANIFEST
from tidalctl.artifacts.bundle.manifest import PROVENANCE, Manifest, decode_manifest
from tidalctl.artifacts.errors import COMPILE_AGAIN, ArtifactError, Corrupt, NotAnArtifact, PathEscapes, Truncated

CHUNK = 4 * 2**20


def open_bundle(path: Path) -> Manifest:
    """The manifest of the bundle at `path`, checked by itself; its files are there with the sizes that it states.

    Raises NotAnArtifact where there is no bundle, and what `decode_manifest` raises.
    """
    if not path.exists():
        raise NotAnArtifact(f"no bundle at {path}", near_bundles(path) or "make one: tidalctl compile app.trace")
    if not path.is_dir():
        raise NotAnArtifact(f"{path} is a file, not a bundle", "a bundle is a directory: tidalctl compile app.trace makes one")
    if not (path / MANIFEST).is_file():
        inside = near_bundles(path / MANIFEST)
        raise NotAnArtifact(f"{path} holds no {MANIFEST}", inside or "make a bundle: tidalctl compile app.trace")
    manifest = decode_manifest((path / MANIFEST).read_bytes(), path / MANIFEST)
    root = path.resolve()
    for name, stored in manifest.files.items():
        file = path / name
        try:
            found = file.stat()
        except OSError:
            raise Truncated(f"{path}: {name} is missing", COMPILE_AGAIN) from None
        if not stat.S_ISREG(found.st_mode):
            raise Corrupt(f"{path}: {name} is not a file", COMPILE_AGAIN)
        size = found.st_size
        if not file.resolve().is_relative_to(root):
            raise PathEscapes(f"{path}: {name} is a link that leads out of the bundle", COMPILE_AGAIN)
        if size != stored.size:
            kind = Truncated if size < stored.size else Corrupt
            raise kind(f"{path}: {name} has {size} bytes, {stored.size} were written", COMPILE_AGAIN)
    return manifest


def near_bundles(path: Path) -> str | None:
    """A hint that lists the bundles beside a path that does not exist."""
    try:
        found = sorted(p.parent.name for p in path.absolute().parent.glob(f"*/{MANIFEST}"))
    except OSError:
        return None
    return f"there is: {', '.join(found[:5])}" if found else None


def file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check_file(path: Path, manifest: Manifest, name: str, digest: str | None = None) -> None:
    """Raise Corrupt unless the file's sha256 is the manifest's. Pass `digest` where it is known already."""
    if (digest or file_digest(path / name)) != manifest.files[name].sha256:
        raise Corrupt(f"{path}: {name} is not what compile wrote (its sha256 differs)", COMPILE_AGAIN)


def read_checked(path: Path, manifest: Manifest, name: str, *, check: bool = True) -> bytes:
    """A file's bytes, known to be the manifest's: what becomes of the file afterwards does no harm. Raises Truncated or Corrupt."""
    try:
        data = (path / name).read_bytes()
    except OSError as error:
        raise Truncated(f"{path}: {name} can't be read: {error.strerror}", COMPILE_AGAIN) from None
    if check:
        check_file(path, manifest, name, hashlib.sha256(data).hexdigest())
    return data


def unlisted_files(path: Path, manifest: Manifest) -> list[str]:
    """Files in the bundle that its manifest does not vouch for."""
    known = {*manifest.files, MANIFEST, PROVENANCE}
    found = (p.relative_to(path).as_posix() for p in path.rglob("*") if not p.is_dir() or p.is_symlink())
    return sorted(name for name in found if name not in known and not name.startswith(f"{IMAGE_FOLDER}/"))


def partial_name(target: Path) -> Path:
    """Where an artifact is written before it gets its name: beside it, hidden, and marked with the writer's process."""
    return target.with_name(f".{target.name}.{os.getpid()}.partial")


def clear_stale_partials(target: Path) -> None:
    """Remove what killed writers of the same artifact left behind. Those of living processes are let be."""
    for path in target.parent.glob(f".{target.name}.*.partial"):
        owner = path.name.removesuffix(".partial").rpartition(".")[2]
        if owner.isdigit() and not _alive(int(owner)):
            remove(path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync_tree(path: Path) -> None:
    """Make a directory and all below it durable."""
    for file in [*path.rglob("*"), path, path.parent]:
        _sync(file)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(partial: Path, target: Path) -> None:
    """Give a finished, synced artifact its name in one step; what had the name before is gone afterwards.

    A directory can't be renamed over another, so the two change places (renameat2's RENAME_EXCHANGE) and the old one, now under
    the hidden name, is removed. Raises ArtifactError where the file system can't do that.
    """
    if target.is_dir() and partial.is_dir() and not target.is_symlink():
        _exchange(partial, target)
        remove(partial)
    else:
        os.replace(partial, target)
    _sync(target.parent)


def _exchange(one: Path, other: Path) -> None:
    at_fdcwd, rename_exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) != 0:
        code = ctypes.get_errno()
        hint = "remove the old one first" if code in (errno.EINVAL, errno.ENOSYS) else None
        raise ArtifactError(f"{other} could not be replaced in one step: {os.strerror(code)}", hint)
