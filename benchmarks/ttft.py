"""How long from exec to the first token, beside other ways to load the same weights?

    python benchmarks/ttft.py [--shape 1b|tiny] [-n 5] [--cache warm|cold|both] [--only ROW …] [--touch GIB] [--output FILE]

Subjects: a 1.1B Llama, SmolLM2 from its GGUF file, and a decoder in plain torch. Each row is a fresh process on the same request,
timed from its spawn; each answer must be the plain function's, for the Llama with a digest of all logits. Cold: every file that any
row of the subject reads (found by watching a start of each) is evicted, proved with mincore, code apart from weights. The floor is
what no loading can save: the interpreter and the imports over a warm cache, and the handler once everything is warm. Makes models
and bundles first; --reuse keeps bundles.
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measure
from measure import Failed, Sample, say

from tidalctl.artifacts.errors import FunctionError, TidalError
from tidalctl.bench.page_cache import cached_files
from tidalctl.bench.processes import PlainFunction, Run, run_bundle, run_eager
from tidalctl.bench.subject import Subject, comparable, open_subject

PROMPT, TOKENS = 32, 8
CHAT = json.dumps({"prompt": "What is the capital of France?", "max_new_tokens": 8})
LLAMA = json.dumps({"prompt": [(37 * i + 11) % 256 for i in range(PROMPT)], "tokens": TOKENS, "digest": True})
SUBJECTS = {  # what the table calls it, the plain function, its event
    "llama": ("Llama in bf16, random weights", "benchmarks/apps/llama_base.py", LLAMA),
    "smollm2": ("SmolLM2-135M-Instruct, from its GGUF file", "examples/smollm2/app.py", CHAT),
    "plain_torch": ("a decoder in plain torch, 4.8 million weights", "examples/plain_torch/app.py", CHAT),
}
# of the Llama: what the table calls it, the package it needs, the file that it reads beside the checkpoint's folder
PEERS = {
    "load_file": ("safetensors `load_file` and `assign=True`", "safetensors", ""),
    "torch_load": ("`torch.load(mmap=True)` and `assign=True`", "torch", "model.pt"),
    "runai": ("Run:ai Model Streamer", "runai_model_streamer", ""),
    "fastsafetensors": ("fastsafetensors", "fastsafetensors", ""),
    "tensorizer": ("tensorizer", "tensorizer", "model.tensors"),
}
OWN = {"bundle": "tidalctl, from the bundle", "plain": "plain function", "floor": "floor: warm imports and a warm forward"}
ROWS = [f"{subject}.{row}" for subject in SUBJECTS for row in (*OWN, *(PEERS if subject == "llama" else ()))]
FORWARDS = 4  # the first is not warm, and left out

# The plain function, with the state of its first call kept: all imports, then the time of the first piece of further calls.
FLOOR = """
import time
import importlib, json, statistics, sys
root, module, handler, event, count, foreseen = sys.argv[1:]
sys.path.insert(0, root)
call = getattr(importlib.import_module(module), handler)
for name in json.loads(foreseen):
    importlib.import_module(name)
imported = time.monotonic_ns()
from tidalctl.function.init_mark import answer_inits_with
states = {}
def keep(mark, given, named):
    if mark.name not in states:
        states[mark.name] = mark.function(*given, **named)
    return states[mark.name]
answer_inits_with(keep)
forwards = []
for _ in range(int(count)):
    began = time.perf_counter()
    pieces = iter(call(json.loads(event), None))
    next(pieces)
    forwards.append(time.perf_counter() - began)
    list(pieces)
print()
print(json.dumps({"imported_ns": imported, "forwards_s": forwards[1:]}))
"""


@dataclass
class Bench:
    """One subject: how its rows are started, what they read, and what each must answer."""

    name: str
    label: str
    subject: Subject
    event: str
    rows: list[str]
    expected: str = ""
    plain: dict[str, PlainFunction] = field(default_factory=dict)
    weights: dict[str, list[Path]] = field(default_factory=dict)
    code: dict[str, list[Path]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def files(self, row: str) -> dict[str, list[Path]]:
        return {"weights": self.weights[row], "code": self.code[row]}

    @functools.cached_property
    def everything(self) -> dict[str, list[Path]]:
        parts = {"weights": self.weights, "code": self.code}
        return {part: cached_files(path for files in found.values() for path in files) for part, found in parts.items()}


def open_bench(name: str, rows: Sequence[str], options: argparse.Namespace) -> Bench:
    """Make what the subject needs and start each of its rows once, to see what it reads."""
    label, source, event = SUBJECTS[name]
    base, packages, kept = None, {}, f"ttft-{name}.bundle"
    if name == "llama":
        base, packages = measure.llama(options)
        label, kept = f"{options.shape} {label}", f"ttft-{name}-{options.shape}.bundle"
    subject = open_subject(measure.bundle(measure.ROOT / source, [event], options.work.absolute() / kept, options.reuse))
    bench = Bench(name, label, subject, event, [row.partition(".")[2] for row in rows])
    say(f"survey: {name}.plain")
    plain = subject.plain
    output, opened = measure.survey(plain.root, plain.module, plain.handler, event, plain.cwd)
    bench.expected = comparable(output)
    weights, parts = set(subject.read), set(subject.weights)
    for row in ("plain", "floor"):
        bench.plain[row] = plain
        bench.weights[row] = list(subject.read)
        bench.code[row] = [path for path in opened if path not in weights]
    bench.weights["bundle"] = list(subject.weights)
    bench.code["bundle"] = [path for path in cached_files([*opened, *subject.everything]) if path not in weights | parts]
    for row in bench.rows:
        if row in PEERS:
            assert base
            open_peer(bench, row, packages, base)
    return bench


def open_peer(bench: Bench, row: str, packages: dict[str, Any], base: Path) -> None:
    _, package, file = PEERS[row]
    plain = bench.subject.plain
    if cause := packages[package]["cause"]:
        bench.absent[row] = cause
        return
    bench.plain[row] = PlainFunction(
        root=plain.root, cwd=plain.cwd, source=f"llama_{row}.py", module=f"llama_{row}", handler="handler"
    )
    say(f"survey: {bench.name}.{row}")
    try:
        _, opened = measure.survey(plain.root, f"llama_{row}", "handler", bench.event, plain.cwd)
    except Failed as error:
        bench.absent[row] = str(error).splitlines()[-1]
        return
    bench.weights[row] = cached_files([base.parent / file if file else base / "model.safetensors"])
    known = {*bench.subject.read, *bench.weights[row]}
    bench.code[row] = [path for path in opened if path not in known]


def take(bench: Bench, row: str) -> Run:
    return (
        run_bundle(bench.subject.path, bench.subject.plain, bench.event)
        if row == "bundle"
        else run_eager(bench.plain[row], bench.event)
    )


def take_floor(bench: Bench) -> Sample:
    """The sum of two times of one process. Raises Failed."""
    plain = bench.subject.plain
    foreseen = json.dumps(measure.foreseen(bench.subject.manifest))
    given = (plain.root, plain.module, plain.handler, bench.event, str(FORWARDS), foreseen)
    child = measure.run(FLOOR, *given, cwd=Path(plain.cwd))
    imports = (child.report["imported_ns"] - child.spawned_ns) / 1e9
    forward = statistics.median(child.report["forwards_s"])
    phases = {"imports": round(imports, 6), "compute": round(forward, 6)}
    return {"ttft_s": imports + forward, "phases": phases, "forwards_s": child.report["forwards_s"]}


def sample_all(bench: Bench, options: argparse.Namespace) -> Iterator[Sample]:
    rows = [row for row in bench.rows if row not in bench.absent]
    ended = 0.0
    for cache, turn, row in measure.turns(rows, options.n, measure.caches(options)):
        if row == "floor" and cache == "cold":
            if "warm" in measure.caches(options):
                continue
            cache = "warm"  # there is no other floor
        state = measure.prepare(cache, bench.files(row), bench.everything, options.touch)
        found: Sample = {"turn": turn, "row": f"{bench.name}.{row}", **state.fields()}
        found["idle_s"] = round(time.monotonic() - ended, 3) if ended else None
        if row in bench.absent:
            continue
        if row == "floor":
            found |= take_floor(bench)
        else:
            try:
                run = take(bench, row)
            except FunctionError as error:
                if row not in PEERS:
                    raise
                bench.absent[row] = error.message
                continue
            found |= {
                "ttft_s": run.ttft_s,
                "total_s": run.total_s,
                "exit_s": run.exit_s,
                "phases": {name: round(seconds, 6) for name, seconds in run.phases.items()},
                "own_s": run.own_s,
                "output_equal": comparable(run.output) == bench.expected,
                "strategy": run.strategy,
                "fallback": run.fallback,
            }
        ended = time.monotonic()
        say(f"{cache} {turn + 1}/{options.n} {found['row']}: {found['ttft_s']:.3f} s")
        yield found


def table(benches: Sequence[Sample], samples: Sequence[Sample]) -> Iterator[str]:
    for bench in benches:
        label = f"{bench['label']}: exec to first token"
        yield f"| {label} | page cache evicted | over the bundle's | files in memory | over the bundle's |"
        yield "| --- | --- | --- | --- | --- |"
        for row in bench["rows"]:
            name = f"{bench['name']}.{row}"
            label = OWN.get(row) or PEERS[row][0]
            if cause := bench["absent"].get(row):
                yield f"| {label} | not measured: {cause} | | | |"
                continue
            cells = []
            for cache in ("cold", "warm"):
                cells.append(measure.cell(list(measure.values(samples, name, cache, "ttft_s").values())))
                over = None if row == "bundle" else measure.ratio(samples, name, f"{bench['name']}.bundle", cache, "ttft_s")
                cells.append(measure.times(over))
            yield f"| {label} | {' | '.join(cells)} |"
        yield ""
    yield from measure.notes(samples)
    for name, cause in dict.fromkeys((one["row"], one["fallback"]) for one in samples if one.get("fallback")):
        yield f"note: {name}: init ran the ordinary way, because {cause}"


def describe(bench: Bench) -> Sample:
    manifest = bench.subject.manifest
    return {
        "name": bench.name,
        "label": bench.label,
        "event": json.loads(bench.event),
        "bundle": {"digest": manifest.digest, "strategy": manifest.strategy},
        "rows": bench.rows,
        "absent": bench.absent,
        "bytes_read": {
            row: sum(path.stat().st_size for part in bench.files(row).values() for path in part) for row in bench.weights
        },
    }


def main() -> None:
    options = measure.parser(__doc__, "ttft").parse_args()
    rows = measure.chosen(ROWS, options.only)
    samples: list[Sample] = []
    benches: list[Sample] = []
    try:
        for name in SUBJECTS:
            if mine := [row for row in rows if row.startswith(f"{name}.")]:
                bench = open_bench(name, mine, options)
                samples += sample_all(bench, options)
                benches.append(describe(bench))
    except TidalError as error:
        raise SystemExit(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else "")) from None
    except Failed as error:
        raise SystemExit(f"error: {error}") from None
    ratios = {
        cache: {one: measure.ratio(samples, one, f"{one.partition('.')[0]}.bundle", cache, "ttft_s") for one in rows}
        for cache in measure.caches(options)
    }
    document = {
        "machine": measure.machine(),
        "touched_gib": options.touch,
        "subjects": benches,
        "ratios": ratios,
        "samples": samples,
    }
    measure.write(options.output, document)
    print("\n".join(table(benches, samples)))
    if any(one.get("output_equal") is False for one in samples):
        raise SystemExit("error: an answer is not the plain function's")


if __name__ == "__main__":
    main()
