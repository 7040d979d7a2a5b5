"""The folder of a user's host: its socket, its lock and its log. Nobody else may have made it, or may look into it."""

import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tidalctl.artifacts.errors import TidalError
from tidalctl.host.wire import peer

SERVING = "serve-*.sock"  # sockets of hosts that answer HTTP, too, by their process ids
SOCKET, LOCK, LOG = "host.sock", "host.lock", "host.log"


def host_folder() -> Path:
    """Return the folder, which is made where it is not there: below $XDG_RUNTIME_DIR, or the temporary directory.

    Raises TidalError where it belongs to somebody else, is a link, or others may enter it.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    path = Path(runtime, "tidalctl") if runtime else Path(tempfile.gettempdir(), f"tidalctl-{os.getuid()}")
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise TidalError(
            f"no folder for the host: {error.strerror}: {path}", "set XDG_RUNTIME_DIR to a folder of your own"
        ) from None
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) != 0o700:
        raise TidalError(
            f"{path} is not a folder that is yours alone (0700, and no link)", "remove it, or set XDG_RUNTIME_DIR to another"
        )
    return path


def connect(folder: Path, name: str = SOCKET) -> socket.socket | None:
    """Return a connection to the host of this folder, or None where none answers. Raises TidalError where it is somebody else's."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(folder / name))
    except OSError:
        connection.close()
        return None
    if peer(connection)[1] != os.getuid():
        connection.close()
        raise TidalError(f"the host at {folder / name} is somebody else's", f"remove {folder}")
    return connection


@contextlib.contextmanager
def serving_socket(folder: Path) -> Iterator[socket.socket]:
    """Listen on a socket of this process's own in the folder, until the end."""
    path = folder / SERVING.replace("*", str(os.getpid()))
    path.unlink(missing_ok=True)  # of a process that had this number
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen(8)
        try:
            yield listening
        finally:
            path.unlink(missing_ok=True)
