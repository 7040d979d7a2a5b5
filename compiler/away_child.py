"""Runs `tidalctl run` where the project, and files that only init has read, are out of reach.

In a mount namespace of its own an empty folder covers the project, and what a start may use there (the environment, the bundle) is
bound back; a file outside the project is deleted in an overlay. Where the kernel forbids that, Python's own ways to a file answer that
there is none, and `told` is made: a library that opens a file by itself is then not kept from it.

Example: `python -m tidalctl.compiler.away_child '{"root": …}' run app.bundle --event -`
"""

import contextlib
import ctypes
import errno
import json
import os
import runpy
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

NEW_NAMESPACE, NEW_USER = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 0x40000  # MS_BIND, MS_REC, MS_PRIVATE


def main() -> None:
    request = json.loads(sys.argv[1])
    root, kept, hidden, scratch = (request[name] for name in ("root", "kept", "hidden", "scratch"))
    directory, covered = os.getcwd(), False
    with contextlib.suppress(OSError):
        _own_namespace()
        with contextlib.suppress(OSError):
            _hide_files(hidden, scratch)
            hidden = []
        _cover(root, kept)
        covered = True
    if hidden or not covered:
        _refuse_in_python(None if covered else root, kept, hidden)
        Path(request["told"]).touch()
    with contextlib.suppress(OSError):
        os.chdir(directory)  # as it is now
    sys.argv = ["tidalctl", *sys.argv[2:]]
    runpy.run_module("tidalctl", run_name="__main__", alter_sys=True)


def _call(name: str, *arguments: Any) -> None:
    """Call a function of the C library. Raise OSError where it fails."""
    encoded = [os.fsencode(value) if isinstance(value, str) else value for value in arguments]
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*encoded) != 0:
        raise OSError(ctypes.get_errno(), name)


def _own_namespace() -> None:
    """Give this process mounts of its own: as who may, or else as the same user of a user namespace."""
    user, group = os.geteuid(), os.getegid()
    try:
        _call("unshare", NEW_NAMESPACE)
    except OSError:
        _call("unshare", NEW_NAMESPACE | NEW_USER)
        for file, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", file).write_text(line)
    _call("mount", None, "/", None, RECURSIVE | PRIVATE, None)


def _hide_files(hidden: Iterable[str], scratch: str) -> None:
    """Delete files in overlays of their folders. Raise OSError where there can be none."""
    folders: dict[str, list[str]] = {}
    for path in hidden:
        folders.setdefault(os.path.dirname(path), []).append(path)
    if folders:
        _call("mount", "tmpfs", scratch, "tmpfs", 0, None)
    for number, (folder, paths) in enumerate(folders.items()):
        upper, work = (os.path.join(scratch, f"{number}.{name}") for name in ("upper", "work"))
        os.mkdir(upper)
        os.mkdir(work)
        _call("mount", "overlay", folder, "overlay", 0, f"lowerdir={folder},upperdir={upper},workdir={work}")
        for path in paths:
            os.unlink(path)


def _cover(root: str, kept: Iterable[str]) -> None:
    """Cover a folder with an empty one, in which only what is `kept` is seen."""
    held = [(path, os.open(path, os.O_PATH)) for path in kept if os.path.exists(path)]
    _call("mount", "tmpfs", root, "tmpfs", 0, "mode=755")
    for path, handle in held:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            os.makedirs(path, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Path(path).touch()
        _call("mount", f"/proc/self/fd/{handle}", path, None, BIND | RECURSIVE, None)
        os.close(handle)


def _refuse_in_python(root: str | None, kept: Iterable[str], hidden: Iterable[str]) -> None:
    """Let Python find no file below `root`, if there is one, except in what is kept, and none of the `hidden` ones."""
    begin = f"{(root or '').rstrip('/')}/"
    allowed = tuple(f"{path.rstrip('/')}/" for path in kept)
    gone = frozenset(hidden)

    def refuse(path: Any) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            absolute = os.path.abspath(os.fsdecode(path))
            inside = root is not None and absolute.startswith(begin)
            above = any(entry.startswith(f"{absolute}/") for entry in allowed)
            if absolute in gone or (inside and not above and not f"{absolute}/".startswith(allowed)):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def ask(path: Any, *arguments: Any, **keywords: Any) -> Any:
            refuse(path)
            return original(path, *arguments, **keywords)

        return ask

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir"):
            refuse(arguments[0])

    sys.addaudithook(hear)
    for name in ("stat", "lstat"):
        original = getattr(os, name)
        setattr(os, name, wrapped(original))
        for supported in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
            if original in supported:
                supported.add(getattr(os, name))


if __name__ == "__main__":
    main()
