"""What a spare does before there is an event: the first launches and reads of a process, and nothing that is the user's."""

import contextlib
from pathlib import Path

from tidalctl.runtime.template import Template
from tidalctl.runtime.weights.file_mapping import enter_pages

PARALLEL = 2**18  # elements: more than torch leaves to one thread


def warm_up(template: Template) -> None:
    """Start the thread pool, launch the bundle's kernels on scratch data, and enter its weights in the page table.

    No generator is drawn from, and nothing of the function is called.
    """
    if template.manifest.weights:
        import torch

        torch.zeros(PARALLEL).add_(1)
        template.prewarm.ahead()
        enter_files(template.path)


def enter_files(folder: Path) -> None:
    """Enter what is mapped of a folder's files in this process's page table, as far as it is in memory."""
    inside = f"{folder}/"
    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            place, _, _, _, _, *name = line.rstrip("\n").split(maxsplit=5)
            if name and name[0].startswith(inside):
                begin, end = (int(number, 16) for number in place.split("-"))
                enter_pages(begin, end - begin)
