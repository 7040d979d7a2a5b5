"""What of a machine a process image holds for: its kernel, its processor and its cores, and the files that are mapped."""

import hashlib
import os
from collections.abc import Iterable, Mapping

FLAGS_WITHIN = 16 * 2**10  # bytes of /proc/cpuinfo, which has a paragraph a core


def describe_machine() -> dict[str, str]:
    """Return what must be alike where an image is made and where it is restored, by the words that name it."""
    system = os.uname()
    return {
        "the kernel": system.release,
        "the machine type": system.machine,
        "the processor's instruction set": hashlib.sha256(_flags()).hexdigest()[:32],
        "the number of cores": str(len(os.sched_getaffinity(0))),
    }


def _flags() -> bytes:
    with open("/proc/cpuinfo", "rb", buffering=0) as file:
        lines = file.read(FLAGS_WITHIN).splitlines()
    return next((line for line in lines if line.startswith((b"flags", b"Features"))), b"")


def stamp(path: str) -> list[int]:
    """Return size and time of a file, or nothing where it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def changed_file(stamps: Mapping[str, Iterable[int]]) -> str | None:
    """Return the first file whose size or time is not what it was, or None."""
    return next((path for path, expected in stamps.items() if stamp(path) != expected), None)
