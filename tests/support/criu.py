"""CRIU for tests: that of `make criu`, or what the machine has; and starts by a user who is not root."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from conftest import Chain

from tidalctl.image.criu import VARIABLE, dump_command, find_criu

MADE = Path(__file__).parents[2] / "build" / "criu" / "criu"
CRIU = find_criu({**os.environ, **({VARIABLE: str(MADE)} if MADE.exists() else {})})
WITH_CRIU = {VARIABLE: CRIU or ""}


def _answers(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def _dumps() -> bool:
    """Whether a process can be dumped and restored here: tried on one that sleeps."""
    if CRIU is None or os.getuid() != 0 or not _answers("unshare", "-m", "true"):
        return False
    with tempfile.TemporaryDirectory() as folder:
        null = subprocess.DEVNULL
        process = subprocess.Popen(["sleep", "100"], stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/")
        dumped = _answers(*dump_command(CRIU, process.pid, folder))
        process.kill()
        process.wait()
        where = ["--images-dir", folder, "--work-dir", "/proc", "--restore-detached", "--unprivileged"]
        return dumped and _answers("unshare", "-p", "-m", "-f", "--mount-proc", CRIU, "restore", *where)


DUMPS = _dumps()
needs_criu = pytest.mark.skipif(not DUMPS, reason="no CRIU here (make criu), not root, or the system allows no dump")
NOBODY = 65534

# In a mount namespace of its own: whatever of the interpreter lies in a folder of root's can be reached by everybody.
AS_NOBODY = """
set -e
folder=$1; shift
if ! setpriv --reuid {nobody} --regid {nobody} --clear-groups test -x "$folder/bin/python3"; then
    top=/$(echo "$folder" | cut -d/ -f2)
    held=$(mktemp -d)
    mount --bind "$folder" "$held"
    mount -t tmpfs -o mode=755 tmpfs "$top"
    mkdir -p "$folder"
    mount --move "$held" "$folder"
fi
exec setpriv --reuid {nobody} --regid {nobody} --clear-groups "$@"
"""


def as_nobody(command: Sequence[object], cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command as the user `nobody`, who can reach this interpreter."""
    script = AS_NOBODY.format(nobody=NOBODY)
    interpreter = os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))
    return subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", interpreter, *map(str, command)],
        cwd=cwd,
        env={**os.environ, "HOME": "/nonexistent", **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


needs_user_namespaces = pytest.mark.skipif(
    not DUMPS or as_nobody(["unshare", "-U", sys.executable, "-P", "-c", "import tidalctl"], Path("/"), {}).returncode != 0,
    reason="nobody has user namespaces here, or can't reach this interpreter",
)


def left(made: Chain) -> set[str]:
    """Processes of restores and dumps of a bundle that are there, by their commands."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if ("dumped_process" in command or "criu" in command) and str(made.folder) in command and state != "Z":
            found.add(f"{pid} {command}")
    return found


def none_left(made: Chain) -> None:
    until = time.monotonic() + 20
    while (there := left(made)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not there
