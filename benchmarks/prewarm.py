"""What does the first launch of each kernel cost, and what does launching them ahead save?

    python benchmarks/prewarm.py [--shape tiny|1b] [-n 5] [--cache warm|cold|both] [--only ROW …] [--reuse] [--output FILE]

Subjects: SmolLM2 from its GGUF file, and the Llama of apps/llama_base.py. Three questions, each a part with rows of its own:

call   The tax itself. One process, all weights in memory and entered in the page table: the time from the state's being there to the
       first piece, of the first call and of three more on the same state. The tax is the first less the median of the others. Before
       the first call nothing was launched (none), each signature of the bundle's list once (list), or the whole call was made once
       (everything), which warms Python's part of it, too: no list of kernels can do better. Files in memory. The samples have the
       thread's own time besides (cpu), which neighbours disturb less.
run    What a start makes of it: exec to first token of `tidalctl run --prewarm` off, auto and list. auto launches only while the first
       weight is on its way, list launches everything first.
late   The same of off and auto where there is a gap to be used: no weight comes until half a second after the state is made.

The tiny Llama's weights are there before anything could wait for them, so that only `call` is asked of it.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
from measure import Failed, Sample, say

from tidalctl.artifacts.errors import TidalError
from tidalctl.bench.page_cache import cached_files
from tidalctl.bench.subject import Subject, comparable, open_subject

CHAT = json.dumps({"prompt": "What is the capital of France?", "max_new_tokens": 8})
LLAMA = json.dumps({"prompt": [(37 * i + 11) % 256 for i in range(32)], "tokens": 2})
SUBJECTS = {"smollm2": ("examples/smollm2/app.py", CHAT), "llama": ("benchmarks/apps/llama_base.py", LLAMA)}
PARTS = {"call": ("none", "list", "everything"), "run": ("off", "auto", "list"), "late": ("off", "auto")}
BASE = {"call": "none", "run": "off", "late": "off"}  # what the others are compared with
FIELD = {"call": "tax_s", "run": "ttft_s", "late": "ttft_s"}
AGAIN = 3  # calls after the first
HELD_S = 0.5

# arguments: bundle, event, what is done before the first call, how many calls follow it
CALL = """
import json, sys, time
from pathlib import Path
from tidalctl.runtime.template import Template
from tidalctl.runtime.process.timeline import Timeline
bundle, event, before, again = sys.argv[1:]
now = time.monotonic_ns()
template = Template(Path(bundle), Timeline(now, now), prewarm="list" if before == "list" else "off")
answer, kept, made = template.answer, {}, (0.0, 0.0)
def clocks():
    return time.perf_counter(), time.thread_time()
def once(mark, given, named):
    global made
    if mark.name not in kept:
        kept[mark.name] = answer(mark, given, named)
        template.weights.wait()
    made = clocks()
    return kept[mark.name]
template.answer = once
given = json.loads(event)
handler = template.prepare(given)
def call():
    pieces = iter(handler(given, None))
    first = next(pieces)
    seconds = [now - then for now, then in zip(clocks(), made)]
    pieces.close()
    return seconds, first
rehearsal = call()[0][0] if before == "everything" else None
first, output = call()
again = [call()[0] for _ in range(int(again))]
found = template.prewarm.report()
print()
print(json.dumps({
    "first_s": first[0],
    "first_cpu_s": first[1],
    "again_s": [wall for wall, cpu in again],
    "again_cpu_s": [cpu for wall, cpu in again],
    "output": output,
    "prewarm_s": found.seconds if rehearsal is None else rehearsal,
    "prewarm": {"known": found.known, "launched": found.launched, "left_out": found.left_out, "failed": found.failed},
    "fallback": template.fallback and template.fallback.text,
}))
"""
# arguments: seconds for which weights are held back after the state is made (0: not at all), and those of tidalctl
RUN = """
import sys, threading
held = float(sys.argv.pop(1))
if held:
    from tidalctl.runtime.kernels.prewarm import Prewarm
    from tidalctl.runtime.weights.mapped import MappedDevice
    over, bring, in_gap = threading.Event(), MappedDevice.bring, Prewarm.in_gap
    def bring_late(self, group):
        over.wait()
        bring(self, group)
    def end_gap(self, wanted):
        threading.Timer(held, over.set).start()
        in_gap(self, wanted)
    MappedDevice.bring, Prewarm.in_gap = bring_late, end_gap
from tidalctl.__main__ import main
main()
"""


@dataclass(frozen=True)
class Bench:
    """One subject, its rows as (part, mode), and the files whose place in memory matters."""

    name: str
    subject: Subject
    event: str
    rows: list[tuple[str, str]]
    files: dict[str, list[Path]]


def open_bench(name: str, rows: list[str], options: argparse.Namespace) -> Bench:
    source, event = SUBJECTS[name]
    if name == "llama":
        measure.llama(options)
    kept = f"prewarm-{name}{f'-{options.shape}' if name == 'llama' else ''}.bundle"
    subject = open_subject(measure.bundle(measure.ROOT / source, [event], options.work.absolute() / kept, options.reuse))
    plain = subject.plain
    say(f"survey: {name}")
    _, opened = measure.survey(plain.root, plain.module, plain.handler, event, plain.cwd)
    weights = {*subject.weights, *subject.read}
    code = [path for path in cached_files([*opened, *subject.everything]) if path not in weights]
    split = [tuple(row.split(".")[1:]) for row in rows]
    return Bench(name, subject, event, [(part, mode) for part, mode in split], {"code": code, "weights": list(subject.weights)})


def take(bench: Bench, part: str, mode: str) -> Sample:
    """One process of a row. Raises Failed."""
    subject, cwd = bench.subject, Path(bench.subject.plain.cwd)
    if part == "call":
        report = measure.run(CALL, str(subject.path), bench.event, mode, str(AGAIN), cwd=cwd).report
        tax = {
            f"tax{clock}_s": report[f"first{clock}_s"] - statistics.median(report[f"again{clock}_s"]) for clock in ("", "_cpu")
        }
        return {**report, **tax}
    given = ("run", str(subject.path), "--event", bench.event, "--json", "--prewarm", mode)
    child = measure.run(RUN, str(HELD_S if part == "late" else 0), *given, cwd=cwd)
    report = child.report
    return {
        "ttft_s": (report["first_token_ns"] - child.spawned_ns) / 1e9,
        "prewarm": report["prewarm"],
        "prewarm_coverage": report["prewarm_coverage"],
        "stalled_s": report["stalled_s"],
        "phases": report["phases"],
        "output": report["output"],
        "fallback": report["fallback"],
    }


def sample_all(bench: Bench, options: argparse.Namespace) -> Iterator[Sample]:
    known = {f"{part}.{mode}": (part, mode) for part, mode in bench.rows}
    expected: dict[str, str] = {}  # by part: a call gives the first piece only
    for row, (part, mode) in known.items():
        say(f"warm-up: {bench.name}.{row}")
        expected.setdefault(part, comparable(take(bench, part, mode)["output"]))
    for cache, turn, row in measure.turns(list(known), options.n, measure.caches(options)):
        part, mode = known[row]
        if cache == "cold" and part != "run":
            continue
        state = measure.prepare(cache, bench.files, bench.files, options.touch)
        found = take(bench, part, mode)
        say(f"{cache} {turn + 1}/{options.n} {bench.name}.{row}: {found[FIELD[part]]:.3f} s")
        equal = comparable(found.pop("output")) == expected[part]
        yield {"turn": turn, "row": f"{bench.name}.{row}", **state.fields(), **found, "output_equal": equal}


def saved(samples: list[Sample], row: str, cache: str) -> Sample | None:
    """Seconds by which a row is shorter than its part's base, turn by turn. None without a pair."""
    name, part, _ = row.split(".")
    base = measure.values(samples, f"{name}.{part}.{BASE[part]}", cache, FIELD[part])
    mine = measure.values(samples, row, cache, FIELD[part])
    pairs = [base[turn] - mine[turn] for turn in mine if turn in base]
    return {"median": statistics.median(pairs), "pairs": pairs} if pairs else None


def table(rows: list[str], samples: list[Sample], states: tuple[str, ...]) -> Iterator[str]:
    yield "| row | page cache | ms, median (range) | ms less than without, median (range) | ms spent ahead | launched of known |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        part = row.split(".")[1]
        for cache in states:
            of = [one for one in samples if (one["row"], one["cache"]) == (row, cache)]
            if not of:
                continue
            less = saved(samples, row, cache)
            spent = statistics.median(one.get("prewarm_s", one["prewarm"].get("seconds", 0.0)) for one in of)
            counts = sorted({f"{one['prewarm']['launched']} of {one['prewarm']['known']}" for one in of})
            cells = [milliseconds([one[FIELD[part]] for one in of]), milliseconds(less["pairs"]) if less else ""]
            yield f"| {row} | {cache} | {' | '.join(cells)} | {spent * 1e3:.0f} | {', '.join(counts)} |"
    yield ""
    yield from measure.notes(samples)
    for row, cause in dict.fromkeys((one["row"], one["fallback"]) for one in samples if one["fallback"]):
        yield f"note: {row}: {cause}"


def milliseconds(found: list[float]) -> str:
    return f"{statistics.median(found) * 1e3:.1f} ({min(found) * 1e3:.1f} to {max(found) * 1e3:.1f})"


def main() -> None:
    parser = measure.parser(__doc__, "prewarm")
    parser.set_defaults(shape="tiny", touch=1)
    options = parser.parse_args()
    alone = ("call",) if options.shape == "tiny" else tuple(PARTS)
    parts = {"smollm2": tuple(PARTS), "llama": alone}
    rows = [f"{name}.{part}.{mode}" for name in SUBJECTS for part in parts[name] for mode in PARTS[part]]
    rows = measure.chosen(rows, options.only)
    samples: list[Sample] = []
    bundles: dict[str, Any] = {}
    try:
        for name in SUBJECTS:
            if mine := [row for row in rows if row.startswith(f"{name}.")]:
                bench = open_bench(name, mine, options)
                samples += sample_all(bench, options)
                bundles[name] = {"digest": bench.subject.manifest.digest, "event": json.loads(bench.event)}
    except TidalError as error:
        raise SystemExit(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else "")) from None
    except Failed as error:
        raise SystemExit(f"error: {error}") from None
    states = measure.caches(options)
    document = {
        "machine": measure.machine(),
        "shape": options.shape,
        "bundles": bundles,
        "touched_gib": options.touch,
        "held_s": HELD_S,
        "rows": rows,
        "saved_s": {cache: {row: found for row in rows if (found := saved(samples, row, cache))} for cache in states},
        "samples": samples,
    }
    measure.write(options.output, document)
    print("\n".join(table(rows, samples, states)))
    if any(not one["output_equal"] for one in samples):
        raise SystemExit("error: an answer is not that of the first row")


if __name__ == "__main__":
    main()
