"""CRIU, which writes a process to disk and restores it: where it is, which version, and how it is called."""

import os
import re
import stat
import subprocess
from collections.abc import Mapping

VARIABLE = "TIDALCTL_CRIU"
OLDEST = (4, 1)  # 3.17 fails on kernels of today
BESIDES = ("/usr/local/sbin", "/usr/sbin")  # where packages put it, which is not on every user's PATH


def find_criu(environ: Mapping[str, str]) -> str | None:
    """Return the path of CRIU: what `TIDALCTL_CRIU` names, or else the first on PATH; None where there is none."""
    if named := environ.get(VARIABLE):
        return os.path.abspath(named) if os.access(named, os.X_OK) and os.path.isfile(named) else None
    folders = [*environ.get("PATH", os.defpath).split(os.pathsep), *BESIDES]
    paths = (os.path.join(folder, "criu") for folder in folders if os.path.isabs(folder))
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), None)


def others_may_write(path: str) -> bool:
    """Whether somebody other than this process's user and root may change what lies at `path`."""
    status = os.stat(path)
    return status.st_uid not in (0, os.getuid()) or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def criu_version(criu: str) -> tuple[int, ...] | None:
    """Return the version that it says it is, or None where it says none."""
    try:
        said = subprocess.run([criu, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"Version:\s*(\d+(?:\.\d+)*)", said)
    return tuple(map(int, found[1].split("."))) if found else None


def last_error(said: str) -> str:
    """Return the last line of what CRIU has said that is an error, without the place in its source."""
    lines = said.splitlines() or ["it said nothing"]
    errors = [line for line in lines if "Error" in line] or lines
    return errors[-1].rpartition("): ")[2].strip()


def dump_command(criu: str, pid: int, folder: str) -> list[str]:
    """Return the command that writes process `pid` into `folder`, and ends it. What fails is said on standard error."""
    return [criu, "dump", "--tree", str(pid), "--images-dir", folder, "--work-dir", "/proc", "-v1"]


def restore_command(criu: str, folder: str, pipe: int, pipe_inode: int) -> list[str]:
    """Return the command that restores a process from `folder` as its parent's child, stopped.

    `pipe` is a descriptor that the process is to have for the pipe that it was waiting on, whose inode was `pipe_inode`. It runs as
    the first user of a user namespace or as root, and leaves clocks and control groups as they are here.
    """
    inherited = f"fd[{pipe}]:pipe:[{pipe_inode}]"
    where = ["--images-dir", folder, "--work-dir", "/proc"]  # where it can't leave its statistics
    how = ["--restore-detached", "--leave-stopped", "--unprivileged", "-v1"]
    return [criu, "restore", *where, *how, "--inherit-fd", inherited]
