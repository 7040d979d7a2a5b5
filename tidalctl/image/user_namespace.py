"""Namespaces of Linux by their system calls: a process of its own process ids and mounts, made without privileges."""

import ctypes
import os

NEWNS, NEWUSER, NEWPID = 0x00020000, 0x10000000, 0x20000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_CAPABILITY_VERSION_3 = 0x20080522
_NEEDED = 1 << 19 | 1 << 21  # CAP_SYS_PTRACE, CAP_SYS_ADMIN
_LIBC = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave namespaces of the kinds `flags` for new ones; of process ids, this process's next children do. Raises OSError."""
    if _LIBC.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "unshare")


def map_user(inside: int, outside: int, group_inside: int, group_outside: int) -> None:
    """Give this process's new user namespace one user and one group. Raises OSError."""
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{inside} {outside} 1")
    _write("/proc/self/gid_map", f"{group_inside} {group_outside} 1")


def mount_proc() -> None:
    """Have mounts of this process's own, with a /proc of its own process ids. Raises OSError."""
    unshare(NEWNS)
    for arguments in (
        (b"none", b"/", None, _MS_REC | _MS_PRIVATE, None),
        (b"proc", b"/proc", b"proc", 0, None),
    ):
        if _LIBC.mount(*arguments) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "mount")


def may_do_all() -> bool:
    """Whether this process is root with the leave to make namespaces and to look into processes, and needs no user namespace."""
    with open("/proc/self/status", "rb") as file:
        effective = next((line for line in file if line.startswith(b"CapEff:")), b"CapEff: 0")
    return os.geteuid() == 0 and int(effective.split()[1], 16) & _NEEDED == _NEEDED


def become_user(user: int, group: int) -> None:
    """Have this process, the first user of its namespace, be `user` again, who it is outside, without any capability."""
    if (os.getuid(), os.getgid()) == (user, group):
        return
    inside, group_inside = os.getuid(), os.getgid()
    unshare(NEWUSER)
    map_user(user, inside, group, group_inside)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    if _LIBC.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "capset")


def _write(path: str, text: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())
