"""The phases of a start: their names, the labels that a person reads, and the colours of docs/start.svg.

The names are those of the spans that a timeline records. Every start imports this module, so it imports nothing heavy.
"""

from typing import NamedTuple


class Phase(NamedTuple):
    """One phase.

    Attributes:
        kind: The colour class in a page; "own" is tidalctl's own work.
        part: The name in a bar that sums a start up.
        label: The name in a table.
    """

    kind: str
    part: str
    label: str


OWN = ("own", "tidalctl")
PHASES = {
    "process start": Phase("process", "Python starts", "interpreter"),
    "host": Phase(*OWN, "handed to the host"),
    "image": Phase(*OWN, "restored from image"),
    "start": Phase(*OWN, "bundle opened"),
    "check": Phase(*OWN, "code checked"),
    "imports": Phase("imports", "imports", "imports"),
    "wait": Phase(*OWN, "weights waited for"),
    "map": Phase(*OWN, "weights mapped"),
    "ambient": Phase(*OWN, "settings as init left them"),
    "print": Phase(*OWN, "output printed"),
    "dynamic init": Phase("state", "dynamic init", "dynamic weights made"),
    "restore": Phase("state", "restore", "state restored"),
    "init": Phase("state", "init", "init"),
    "prewarm": Phase("prewarm", "prewarm", "kernels launched ahead"),
    "compute": Phase("compute", "first forward", "handler"),
    "stall": Phase("stall", "stalls", "stopped for a weight"),
}
# The phases that are tidalctl's own work. The rest is the interpreter, the function's imports, its unpickling and its own compute,
# which the plain function has too or has more of.
OWN_PHASES = tuple(name for name, phase in PHASES.items() if phase.kind == OWN[0])
# Rows of the table that `run` prints, in the order of a start.
TABLE = (
    *("process start", "host", "image", "start", "check", "imports", "wait", "map", "dynamic init"),
    *("restore", "init", "prewarm", "compute"),
)
# for what runs beside the main thread: the first word that stands in the span's name
WORDS = (
    ("prewarm", "prewarm"),
    ("cop", "copy"),
    ("check", "verify"),
    ("hash", "verify"),
    ("read", "read"),
    ("import", "imports"),
)
ORDER = ("process", "own", "imports", "state", "prewarm", "compute", "stall", "read", "verify", "copy")  # left to right
SPOKEN = {"read": "reads", "verify": "checks", "copy": "device copies"}


def phase_of(name: str) -> Phase:
    """Return the phase that the span `name` belongs to. An unknown span is tidalctl's own."""
    if name in PHASES:
        return PHASES[name]
    kind = next((kind for word, kind in WORDS if word in name), "own")
    return Phase(kind, SPOKEN.get(kind, OWN[1] if kind == "own" else name), name)
