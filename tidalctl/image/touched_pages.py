"""Which pages of its mapped files a process has touched: what a start that is restored from it is likely to touch again."""

import mmap
import struct
from collections.abc import Collection

PRESENT = 1 << 63
GAP = 16  # pages between two parts, up to which they are read as one


def touched_parts(pid: int, besides: Collection[str]) -> dict[str, list[tuple[int, int]]]:
    """Return offset and length of the parts of each file that a process has mapped and touched, without the files `besides`."""
    pages: dict[str, set[int]] = {}
    with (
        open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps,
        open(f"/proc/{pid}/pagemap", "rb", 0) as pagemap,
    ):
        for line in maps:
            place, _, offset, _, _, *name = line.rstrip("\n").split(maxsplit=5)
            if not name or not name[0].startswith("/") or name[0] in besides or name[0].endswith(" (deleted)"):
                continue
            begin, end = (int(number, 16) // mmap.PAGESIZE for number in place.split("-"))
            pagemap.seek(begin * 8)
            entries = struct.unpack(f"{end - begin}Q", pagemap.read((end - begin) * 8))
            first = int(offset, 16) // mmap.PAGESIZE
            pages.setdefault(name[0], set()).update(first + n for n, entry in enumerate(entries) if entry & PRESENT)
    return {name: _parts(sorted(numbers)) for name, numbers in sorted(pages.items()) if numbers}


def _parts(numbers: list[int]) -> list[tuple[int, int]]:
    """Return runs of pages as offset and length in bytes, of which near ones are one."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number - runs[-1][1] <= GAP:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [(first * mmap.PAGESIZE, (last - first + 1) * mmap.PAGESIZE) for first, last in runs]
