"""The rounds of a bench: eager, bundle and its image in turn, each in a fresh process, over a page cache that is known each time.

Runs are paired, and the order inside a pair changes every round, so that a machine that grows faster or slower (memory that
went back to the host while it idled, say) favours neither. `Sample.idle_s` says how long it had idled.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tidalctl.artifacts.bundle.provenance import changed_files, names_text
from tidalctl.bench.hosted import Hosted
from tidalctl.bench.page_cache import Residency, evict, fill
from tidalctl.bench.processes import Run, event_argument, run_bundle, run_eager
from tidalctl.bench.samples import BASELINE, HOSTED, IMAGE, VARIANTS, Cache, Measured, Sample, Variant
from tidalctl.bench.subject import Subject, comparable
from tidalctl.report.machine import describe_machine
from tidalctl.report.terminal import count_text

Say = Callable[[str], None]


def measure(
    subject: Subject,
    event: dict[str, Any],
    rounds: int,
    caches: Iterable[Cache],
    say: Say,
    require: str | None = None,
    *,
    host: bool = False,
    image: bool = False,
    baseline: Subject | None = None,
    more: Callable[[Measured, int], int] = lambda measured, rounds: 0,
) -> Measured:
    """Run `rounds` pairs for each state of the page cache. `say` is told before each process what comes.

    Runs from the bundle must make their state by the strategy that `require` names. With `host` each round over a warm cache has a
    host's answers, too, and a later call in one process. With `image` each round has a start from the bundle's process image. With a
    `baseline` each round has a start from that bundle instead of the plain function's. `more` says how many further rounds there are
    to be, after so many.
    Raises FunctionError or TidalError where a process fails; one failure ends the bench.
    """
    with tempfile.TemporaryDirectory(prefix="tidalctl-bench-") as folder:
        argument = event_argument(json.dumps(event), Path(folder))
        session = _Session(subject, argument, require, baseline)
        for cache in caches:
            with contextlib.ExitStack() as opened:  # a host maps the weights, which no cold start may find in memory
                variants = (*VARIANTS, IMAGE) if image else VARIANTS
                if baseline is not None:
                    session.run("eager")  # what the others are held against
                    variants = (*variants[1:], BASELINE)
                if cache == "warm":
                    if host:
                        say("starting the hosts")
                        session.runs += 2  # each host has answered once
                        session.hosted = opened.enter_context(Hosted(subject, event))
                        variants = (*variants, *HOSTED)
                    for variant in variants:
                        say(f"warm-up: {variant}")
                        session.run(variant)
                turn, last = 0, rounds
                while turn < last:
                    for variant in variants if turn % 2 == 0 else variants[::-1]:
                        say(f"{cache} {turn + 1}/{last}: {variant}")
                        session.sample(variant, cache)
                    turn += 1
                    if turn == last and cache == "warm":
                        last += more(_measured(subject, session), turn)
    return _measured(subject, session)


def _measured(subject: Subject, session: "_Session") -> Measured:
    return Measured(
        machine=describe_machine(subject.manifest.fingerprint.torch),
        bundle={
            "path": subject.shown,
            "digest": subject.manifest.digest,
            "function": f"{subject.manifest.function.module}:{subject.manifest.function.handler}",
        },
        samples=tuple(session.samples),
        remarks=(*_remarks(subject), *session.remarks, f"the handler ran {count_text(session.runs, 'time')}"),
    )


class _Session:
    """The samples so far, the first plain output that the others are held against, and when the last process ended."""

    def __init__(self, subject: Subject, event: str, require: str | None, baseline: Subject | None = None) -> None:
        self._subject, self._baseline = subject, baseline
        self._options = () if require is None else ("--require", require)
        self._event = event
        self._expected: str | None = None
        self._ended_ns = 0
        self.hosted: Hosted | None = None
        self.runs = 0  # of the handler, the warm-up's included
        self.samples: list[Sample] = []
        self.remarks: dict[str, None] = {}

    def run(self, variant: Variant) -> Run:
        if variant in HOSTED:
            assert self.hosted is not None
            run = self.hosted.run(variant)
        elif variant == "eager":
            run = run_eager(self._subject.plain, self._event)
            self._expected = self._expected or comparable(run.output)
        else:
            image = ("--image", "require" if variant == IMAGE else "off")
            subject = self._baseline if variant == BASELINE and self._baseline is not None else self._subject
            run = run_bundle(subject.path, subject.plain, self._event, *image, *self._options)
        self.runs += 1
        self._ended_ns = run.ended_ns
        return run

    def sample(self, variant: Variant, cache: Cache) -> None:
        before = self._ended_ns
        found = self._prepare(variant, cache)
        run = self.run(variant)
        equal = comparable(run.output) == self._expected if self._subject.manifest.reproducible else None
        started_ns = run.ended_ns - round((run.total_s + run.exit_s) * 1e9)
        self.samples.append(
            Sample(
                variant=variant,
                cache=cache,
                ttft_s=run.ttft_s,
                total_s=run.total_s,
                exit_s=run.exit_s,
                phases={name: round(seconds, 6) for name, seconds in run.phases.items()},
                own_s=run.own_s,
                output_equal=equal,
                resident_before=found.share,
                cache_proved=found.cold if cache == "cold" else found.warm,
                strategy=run.strategy,
                fallback=run.fallback,
                peak_bytes=run.peak_bytes,
                idle_s=round((started_ns - before) / 1e9, 3) if before else None,
            )
        )

    def _prepare(self, variant: Variant, cache: Cache) -> Residency:
        subject = self._baseline if variant == BASELINE and self._baseline is not None else self._subject
        if cache == "warm":
            return fill(subject.read if variant == "eager" else subject.weights)
        other = self._baseline.everything if self._baseline is not None else ()
        left = evict([*self._subject.everything, *other])
        if not left.cold and left.largest:
            self.remarks[f"most of what stayed in memory: {left.largest}; another process may have it mapped"] = None
        return left


def _remarks(subject: Subject) -> Iterable[str]:
    if not subject.manifest.reproducible:
        yield "outputs are not compared: the plain function's own runs differ among themselves"
    if changed := changed_files(subject.manifest, Path(subject.plain.root)):
        yield f"{names_text(changed)} changed since the bundle was made; compile it again to compare like with like"
