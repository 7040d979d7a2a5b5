"""What a page about one start is made from. Times are seconds from the start of the process."""

import msgspec

MAIN = "MainThread"


class Span(msgspec.Struct, frozen=True):
    """A piece of work; `lane` is the thread that did it. Spans of one lane may lie inside one another."""

    name: str
    begin_s: float
    end_s: float
    lane: str = MAIN


class Mark(msgspec.Struct, frozen=True):
    name: str
    at_s: float


class Stall(msgspec.Struct, frozen=True):
    """The main thread stood still, because `module` needed `weight` and it was not there yet."""

    weight: str
    module: str
    begin_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """One start. `phases` are the JSON report's; `ttft_s` is None where the handler gave no output."""

    bundle: str
    digest: str
    strategy: str
    fallback: str | None
    verified: bool
    ttft_s: float | None
    total_s: float
    own_s: float
    weights_bytes: int
    read_bytes: int
    misses: int
    machine: str
    phases: dict[str, float]
    spans: tuple[Span, ...]
    marks: tuple[Mark, ...] = ()
    stalls: tuple[Stall, ...] = ()
    weight_misses: int | None = None  # of weights that the trace did not foresee; None where they are not counted
    io: str = ""  # how the weights were read
