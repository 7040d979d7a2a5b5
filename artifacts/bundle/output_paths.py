"""Where a verb may write: at a name that is free, or over what the same verb has made before. Asked before anything is run.

What else has the name is somebody's, and --force is no leave to delete it.
"""

import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from tidalctl.artifacts.bundle import MANIFEST
from tidalctl.artifacts.errors import TidalError

HEAD = 4096  # bytes, in which a page says whose it is
KINDS = {"timeline": "timeline", "report": "page"}  # by the option that names the file


def is_bundle(path: Path) -> bool:
    """Whether a folder's manifest says that it is a bundle's, of any schema, and however damaged the rest of it is."""
    try:
        data = (path / MANIFEST).read_bytes()
    except OSError:
        return False
    return data.lstrip().startswith(b"{") and re.search(rb'"tidalctl(":|\.bundle")', data) is not None


def _is_replaced_bundle(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and (is_bundle(path) or not any(path.iterdir()))


def _is_trace(path: Path) -> bool:
    head = _head(path)
    return not head or (head[:1] == b"\x92" and b"\xa4type\xa6header" in head[:16])


def _is_events(path: Path) -> bool:
    head = _head(path)
    return not head or head.startswith(b'{"digest": "')


def _is_page(path: Path) -> bool:
    head = _head(path)
    return not head or b'<meta name="generator" content="tidalctl">' in head


def _is_timeline(path: Path) -> bool:
    data = path.read_bytes() if _head(path) else b""
    return not data or (data[:1] == b"{" and "traceEvents" in json.loads(data))


def _head(path: Path) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(HEAD)


_OURS = {
    "bundle": _is_replaced_bundle,
    "trace": _is_trace,
    "list of events": _is_events,
    "page": _is_page,
    "timeline": _is_timeline,
}


def _ours(path: Path, kind: str) -> bool:
    """Whether what has the name may go: made by the verb that asks, or empty. What can't be read is not known to be."""
    try:
        return (kind == "bundle" or path.is_file()) and _OURS[kind](path)
    except (OSError, ValueError, RecursionError):
        return False


def refuse_existing(path: Path, force: bool, kind: str) -> None:
    """Raise TidalError where the name of a bundle or a trace is taken, and with `force` where it is by anything else than one."""
    if not os.path.lexists(path):
        return
    if not _ours(path, kind):
        raise TidalError(f"{path} exists and is no {kind}", f"name another with -o: --force replaces nothing but a {kind}")
    if not force:
        raise TidalError(f"{path} exists", "replace it with --force, or name another with -o")


def refuse_folder(path: Path) -> None:
    """Raise TidalError where no bundle of that name can be made."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise TidalError(f"{path} can't be made: no folder {path.parent}", "make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TidalError(
            f"{path} can't be made: {path.parent} can't be written to", "name another place, or check its permissions"
        )


def refuse_files(named: Mapping[str, str]) -> None:
    """Raise TidalError where a page or a timeline, by the option that names it, can't be written or would take another's place."""
    seen: set[Path] = set()
    for option, given in named.items():
        path, said, kind = Path(given), f"--{option} {given}", KINDS[option]
        if not path.absolute().parent.is_dir():
            raise TidalError(f"{said}: no such folder", "make it first")
        if path.is_dir():
            raise TidalError(f"{said}: is a folder", f"name a file for the {kind}")
        real = path.resolve()
        if real in seen:
            raise TidalError(f"{said}: the other file has that name", "name two files")
        seen.add(real)
        if any(is_bundle(folder) for folder in real.parents):
            raise TidalError(f"{said}: lies in a bundle, which holds what its manifest lists and nothing else", "name another")
        if path.exists() and stat.S_ISFIFO(mode := path.stat().st_mode) | stat.S_ISCHR(mode):
            continue  # /dev/stdout, or another process: nothing is lost there
        if os.path.lexists(path) and not _ours(path, kind):
            raise TidalError(
                f"{said}: exists and is no {kind} of tidalctl's", f"name another: only an earlier {kind} is replaced"
            )
        try_to_write(path, said)


def try_to_write(path: Path, said: str) -> None:
    """Raise TidalError where a file can't be written. What is there stays as it is."""
    try:
        fresh = not os.path.lexists(path)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))
        if fresh:
            path.unlink()
    except OSError as error:
        raise TidalError(f"{said} can't be written: {error.strerror}", "name another place, or check its permissions") from None
