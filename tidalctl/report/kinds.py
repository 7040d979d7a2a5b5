"""What the parts of a start are called and which colour they have: the same names and colours as in docs/start.svg."""

from typing import NamedTuple


class Phase(NamedTuple):
    """`kind` is the colour, `part` the name in a bar that sums a start up, `label` the name by itself."""

    kind: str
    part: str
    label: str


OWN = ("own", "tidalctl")
PHASES = {
    "process start": Phase("process", "Python starts", "interpreter"),
    "start": Phase(*OWN, "bundle opened"),
    "check": Phase(*OWN, "code checked"),
    "imports": Phase("imports", "imports", "imports"),
    "wait": Phase(*OWN, "weights waited for"),
    "map": Phase(*OWN, "weights mapped"),
    "ambient": Phase(*OWN, "settings as init left them"),
    "print": Phase(*OWN, "output printed"),
    "dynamic init": Phase("state", "dynamic init", "dynamic weights made"),
    "restore": Phase("state", "restore", "state restored"),
    "init": Phase("state", "init", "init, or the rest of it"),
    "prewarm": Phase("prewarm", "prewarm", "kernels launched ahead"),
    "compute": Phase("compute", "first forward", "handler"),
    "stall": Phase("stall", "stalls", "stopped for a weight"),
}
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
    """The phase that a span belongs to. What nothing is known of is tidalctl's own."""
    if name in PHASES:
        return PHASES[name]
    kind = next((kind for word, kind in WORDS if word in name), "own")
    return Phase(kind, SPOKEN.get(kind, OWN[1] if kind == "own" else name), name)
