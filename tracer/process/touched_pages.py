"""Which parts of its files a process has touched: what a start must have read, and what of a large library it need not."""

import array
import mmap
from collections.abc import Iterable, Mapping

PAGE = mmap.PAGESIZE
GAP = 64  # pages: a gap that is read in less time than another request takes
_THERE = 62  # bits 62 and 63 of an entry: the page is swapped, or in memory (Documentation/admin-guide/mm/pagemap.rst)


def touched_parts(paths: Iterable[str]) -> Mapping[str, tuple[tuple[int, int], ...]]:
    """(offset, length) in bytes of what this process has in its page tables of these files, in order, small gaps included.

    The kernel enters the pages around one that is touched, too, where they are in memory. Empty where there is no pagemap to read.
    """
    pages: dict[str, set[int]] = {path: set() for path in paths}
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            lines = [line.rstrip("\n").split(maxsplit=5) for line in maps]
        with open("/proc/self/pagemap", "rb", buffering=0) as table:
            for parts in lines:
                if len(parts) == 6 and parts[5] in pages:
                    begin, _, end = parts[0].partition("-")
                    first = int(begin, 16) // PAGE
                    table.seek(first * 8)
                    entries = array.array("Q", table.read((int(end, 16) // PAGE - first) * 8))
                    offset = int(parts[2], 16) // PAGE
                    pages[parts[5]].update(offset + place for place, entry in enumerate(entries) if entry >> _THERE)
    except OSError:
        return {}
    return {path: _runs(sorted(found)) for path, found in pages.items() if found}


def _runs(pages: Iterable[int]) -> tuple[tuple[int, int], ...]:
    runs: list[list[int]] = []
    for page in pages:
        if runs and page - runs[-1][1] <= GAP:
            runs[-1][1] = page + 1
        else:
            runs.append([page, page + 1])
    return tuple((begin * PAGE, (end - begin) * PAGE) for begin, end in runs)
