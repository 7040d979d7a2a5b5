"""The memory that processes hold, as the kernel tells it."""


def held_memory(pid: int) -> int | None:
    """Return a process's proportional set size in bytes: a page that several share counts in parts.

    0 where the process has ended, None where this one may not know.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:")), 0)
    except PermissionError:
        return None
    except OSError:
        return 0
