"""Messages between a host, its clients and its template processes: JSON with a length before it, and descriptors beside it.

A message goes over a Unix stream socket: 4 bytes of length, then the text. Its descriptors (SCM_RIGHTS) travel with the length.
"""

import array
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

LENGTH = struct.Struct("!I")
LONGEST = 64 * 2**20  # bytes of one message: an event may be large, and a length beyond this is none
MOST_DESCRIPTORS = 8


class Gone(Exception):
    """The other side has closed the connection, or what it sends is no message."""


def send(connection: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send a message. Raises Gone where nobody takes it."""
    text = json.dumps(message, separators=(",", ":")).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    try:
        connection.sendmsg([LENGTH.pack(len(text))], rights)
        connection.sendall(text)
    except OSError as error:
        raise Gone(str(error)) from None


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return the next message and its descriptors. Raises Gone where there is none."""
    descriptors = array.array("i")
    try:
        space = socket.CMSG_SPACE(MOST_DESCRIPTORS * descriptors.itemsize)
        head, rights, _, _ = connection.recvmsg(LENGTH.size, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in rights:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        head += _exactly(connection, LENGTH.size - len(head)) if head else b""
        (length,) = LENGTH.unpack(head) if len(head) == LENGTH.size else (0,)
        if not 0 < length <= LONGEST:
            raise Gone("no message")
        found = json.loads(_exactly(connection, length))
    except (OSError, ValueError) as error:
        close(descriptors)
        raise Gone(str(error)) from None
    except Gone:
        close(descriptors)
        raise
    return found, list(descriptors)


def close(descriptors: Sequence[int]) -> None:
    """Close descriptors that came with a message."""
    for descriptor in descriptors:
        os.close(descriptor)


def peer(connection: socket.socket) -> tuple[int, int]:
    """Return process id and user on the other side of a Unix socket, as they are called here."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, user, _ = struct.unpack("3i", credentials)
    return pid, user


def _exactly(connection: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(min(length - len(parts), 2**20))
        if not part:
            raise Gone("the connection ended amid a message")
        parts += part
    return bytes(parts)
