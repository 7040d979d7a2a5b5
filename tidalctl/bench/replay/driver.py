"""The driver of a replay: each request is sent when it is due, whatever has become of those before it (open loop)."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from tidalctl.bench.replay.arrivals import Arrival
from tidalctl.bench.replay.resources import MemoryWatch
from tidalctl.bench.replay.samples import Sample, Way
from tidalctl.bench.replay.serving import Answer, Served, Serving, WayName
from tidalctl.bench.subject import comparable

AHEAD_NS = 100_000_000  # from the beginning until the first second of the arrivals begins
Say = Callable[[str], None]


def drive(
    name: WayName,
    serving: Serving,
    arrivals: Sequence[Arrival],
    speed: float,
    functions: Mapping[str, Served],
    expected: Mapping[int, str | None],
    say: Say,
) -> Way:
    """Open a way of serving, send it all requests, `speed` times as fast as they came, and wait for the answers.

    `expected` has each mapping's output to compare with, None where there is nothing to compare.
    """
    watch = MemoryWatch(serving.roots, serving.hold)
    answers: list[tuple[int, Answer] | None] = [None] * len(arrivals)
    with serving, watch.watching():
        opened_ns = time.monotonic_ns()
        serving.open()
        opening = serving.used()
        begin_ns = time.monotonic_ns()
        due_ns = [begin_ns + AHEAD_NS + round(arrival.at_s / speed * 1e9) for arrival in arrivals]

        def ask(number: int) -> None:
            sent_ns = time.monotonic_ns()
            answers[number] = (sent_ns, serving.answer(arrivals[number].function))

        threads: list[threading.Thread] = []
        for number in range(len(arrivals)):
            time.sleep(max(0, due_ns[number] - time.monotonic_ns()) / 1e9)
            say(f"{name}: request {number + 1}/{len(arrivals)}")
            threads.append(threading.Thread(target=ask, args=(number,), daemon=True))
            threads[-1].start()
            threads = [thread for thread in threads if thread.is_alive()]
        for thread in threads:
            thread.join()
        watch.look()
        ended_ns = time.monotonic_ns()
        used = serving.used()
    return Way(
        name=name,
        samples=tuple(
            _sample(arrival, (due - begin_ns - AHEAD_NS) / 1e9, due, answered, functions, expected)
            for arrival, due, answered in zip(arrivals, due_ns, answers, strict=True)
        ),
        opening_s=(begin_ns - opened_ns) / 1e9,
        opening=opening,
        serving_s=(ended_ns - begin_ns) / 1e9,
        serving=used - opening,
        peak_memory=watch.peak,
    )


def _sample(
    arrival: Arrival,
    due_s: float,
    due_ns: int,
    answered: tuple[int, Answer] | None,
    functions: Mapping[str, Served],
    expected: Mapping[int, str | None],
) -> Sample:
    assert answered is not None, "a request's thread raised"
    sent_ns, answer = answered
    mapping = functions[arrival.function].mapping
    wanted = expected[mapping]
    there = answer.failed is None
    return Sample(
        function=arrival.function,
        mapping=mapping,
        due_s=round(due_s, 6),
        late_s=(sent_ns - due_ns) / 1e9,
        start=answer.start,
        ttft_s=(answer.first_ns - due_ns) / 1e9 if there and answer.first_ns else None,
        total_s=(answer.done_ns - due_ns) / 1e9 if there else None,
        output_equal=comparable(answer.output) == wanted if there and wanted is not None else None,
        strategy=answer.strategy,
        cause=answer.cause,
        failed=answer.failed,
    )
