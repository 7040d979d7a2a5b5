"""How long until all weights of a checkpoint are readable?

    python benchmarks/load.py [--shape 1b|tiny] [-n 5] [--cache warm|cold|both] [--only ROW …] [--touch GIB] [--output FILE]

Each row is a loader in a fresh process that has done its imports before. Timed: the call, and then a read of every page of every
tensor, since some loaders only map. Not timed: a checksum of each tensor, which must be the checkpoint's. The page cache is set and
proved with mincore while the process waits. Warm files have been evicted and read once, in order, since how a file came into memory
decides how long mapping it takes: what was written or faulted in lies in small pages. Memory is touched for what will fill some: all
loaders in the cold, and those that copy; where it was handed back just before, maps alone take up to four times as long. Makes the
model, the peers' files and a bundle first; --reuse keeps the bundle.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import measure
from measure import Failed, Sample, say

from tidalctl.bench.page_cache import cached_files, evict
from tidalctl.bench.subject import open_subject

APPS = measure.HERE / "apps"
# row: what the table calls it, the package it needs, its module in apps/, the file that it reads ("" is the bundle's)
ROWS = {
    "tidalctl.checked": ("tidalctl, checked as it streams", "torch", "", ""),
    "tidalctl.unchecked": ("tidalctl, not checked", "torch", "", ""),
    "from_pretrained": ("`transformers.from_pretrained`", "transformers", "llama_base", "base/model.safetensors"),
    "load_file": ("safetensors `load_file`", "safetensors", "llama_load_file", "base/model.safetensors"),
    "torch_load": ("`torch.load(mmap=True)`", "torch", "llama_torch_load", "model.pt"),
    "runai": ("Run:ai Model Streamer", "runai_model_streamer", "llama_runai", "base/model.safetensors"),
    "fastsafetensors": ("fastsafetensors", "fastsafetensors", "llama_fastsafetensors", "base/model.safetensors"),
    "tensorizer": ("tensorizer", "tensorizer", "llama_tensorizer", "model.tensors"),
}
BUNDLES = ("tidalctl.checked", "tidalctl.unchecked")
MAPPED = (*BUNDLES, "from_pretrained", "load_file", "torch_load")  # warm, these fill no memory of their own
BEST = "tidalctl.checked"  # what the others are compared with

# Imports, says "ready", waits for a line, loads, touches, and says how long that took and what it has.
CHILD = '''
import importlib, json, sys, time, zlib
from pathlib import Path
import torch

def of_a_bundle(path, verify):
    """What loads every weight of a bundle, over the mappings that a start has."""
    from tidalctl.artifacts.bundle.directory import open_bundle
    from tidalctl.runtime.weights.weight_stream import StreamOptions, WeightStream
    from tidalctl.runtime.process.timeline import Timeline

    def load():
        now = time.monotonic_ns()
        manifest = open_bundle(path)
        stream = WeightStream(path, manifest, StreamOptions(verify=verify), Timeline(now, now))
        stream.wait()
        files = stream.mappings(again=False)
        return {
            weight.name: torch.frombuffer(files[weight.file].memory, dtype=torch.uint8, count=weight.nbytes, offset=weight.offset)
            for weight in manifest.weights
            if weight.nbytes
        }
    return load

def of_an_app(name):
    module = importlib.import_module(name)
    if hasattr(module, "weights"):
        return module.weights
    from transformers.models.llama import modeling_llama  # from_pretrained would import it within the time
    return lambda: module.load({}).state_dict()

def raw(tensor):
    return tensor.detach().reshape(-1).view(torch.uint8)

kind, what, verify = sys.argv[1:]
sys.path.append(str(Path(what).parent))
load = of_a_bundle(Path(what), verify) if kind == "bundle" else of_an_app(Path(what).name)
print("ready", flush=True)
sys.stdin.readline()
began = time.perf_counter()
weights = load()
loaded = time.perf_counter()
for tensor in weights.values():
    raw(tensor)[::4096].sum()
touched = time.perf_counter()
sums = sorted([part.numel(), zlib.crc32(part.numpy())] for part in map(raw, weights.values()))
print(json.dumps({"call_s": loaded - began, "readable_s": touched - began, "sums": sums}), flush=True)
'''


def take(arguments: Sequence[str], settle: Any) -> tuple[Any, measure.State]:
    """One process; `settle` puts the machine in its state once the imports are done. Raises Failed."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", CHILD, *arguments],
        cwd=measure.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout
    try:
        while (line := process.stdout.readline()) and line != "ready\n":
            pass
        state = settle()
        out, err = process.communicate("go\n" if line else None)
    except BaseException:  # raised again: an interrupt, too, must not leave the child behind
        process.kill()
        process.wait()
        raise
    if process.returncode or not out:
        raise Failed("\n".join(err.splitlines()[-measure.TAIL :]) or f"exit code {process.returncode}")
    return json.loads(out.splitlines()[-1]), state


def holds(found: Sequence[Sequence[int]], expected: Sequence[Sequence[int]]) -> bool:
    """Whether all expected tensors are there, by size and checksum. A state may hold more: the rotary angles."""
    left = [tuple(one) for one in found]
    for one in map(tuple, expected):
        if one not in left:
            return False
        left.remove(one)
    return True


def arguments_of(row: str, bundle: Path | None) -> list[str]:
    if row in BUNDLES:
        return ["bundle", str(bundle), "stream" if row == BEST else "off"]
    return ["app", str(APPS / ROWS[row][2]), "off"]


def sample_all(options: Any, rows: Sequence[str], bundle: Path | None, base: Path, absent: dict[str, str]) -> Iterator[Sample]:
    def files(row: str) -> list[Path]:
        if row in BUNDLES:
            assert bundle
            return list(open_subject(bundle).weights)
        return cached_files([base.parent / ROWS[row][3]])

    read = {row: {"weights": files(row)} for row in rows}
    expected, _ = take(arguments_of("load_file", bundle), lambda: None)
    for row in rows:
        say(f"warm-up: {row}")
        try:
            take(arguments_of(row, bundle), lambda: None)
        except Failed as error:
            absent[row] = str(error).splitlines()[-1]
    for cache, turn, row in measure.turns([row for row in rows if row not in absent], options.n, measure.caches(options)):
        if row in absent:
            continue
        if cache == "warm" and turn == 0:
            evict(read[row]["weights"])
        touched = 0.0 if cache == "warm" and row in MAPPED else options.touch
        settle = functools.partial(measure.prepare, cache, read[row], read[row], touched)
        try:
            report, state = take(arguments_of(row, bundle), settle)
        except Failed as error:
            absent[row] = str(error).splitlines()[-1]
            continue
        say(f"{cache} {turn + 1}/{options.n} {row}: {report['readable_s']:.3f} s")
        yield {
            "turn": turn,
            "row": row,
            **state.fields(),
            "readable_s": report["readable_s"],
            "call_s": report["call_s"],
            "output_equal": holds(report["sums"], expected["sums"]),
        }


def table(document: Sample) -> Iterator[str]:
    samples = document["samples"]
    yield "| all weights readable | page cache evicted | over tidalctl's | files in memory | over tidalctl's |"
    yield "| --- | --- | --- | --- | --- |"
    for row in document["rows"]:
        label = ROWS[row][0]
        if cause := document["absent"].get(row):
            yield f"| {label} | not measured: {cause} | | | |"
            continue
        cells = []
        for cache in ("cold", "warm"):
            cells.append(measure.cell(list(measure.values(samples, row, cache, "readable_s").values())))
            cells.append(measure.times(None if row == BEST else document["ratios"][cache].get(row)))
        yield f"| {label} | {' | '.join(cells)} |"
    yield ""
    yield from measure.notes(samples)


def main() -> None:
    options = measure.parser(__doc__, "load").parse_args()
    rows = measure.chosen(list(ROWS), options.only)
    base, packages = measure.llama(options)
    absent = {row: packages[ROWS[row][1]]["cause"] for row in rows if packages[ROWS[row][1]]["cause"]}
    bundle = None
    if any(row in BUNDLES for row in rows):
        event = json.dumps({"prompt": [1, 2, 3, 4], "tokens": 1})
        bundle = measure.bundle(
            APPS / "llama_base.py", [event], options.work.absolute() / f"load-{options.shape}.bundle", options.reuse
        )
    try:
        samples = list(sample_all(options, [row for row in rows if row not in absent], bundle, base, absent))
    except Failed as error:
        raise SystemExit(f"error: {error}") from None
    document = {
        "machine": measure.machine(),
        "model": {"shape": options.shape, "bytes": os.path.getsize(base / "model.safetensors")},
        "packages": packages,
        "touched_gib": options.touch,
        "rows": rows,
        "absent": absent,
        "ratios": {
            cache: {row: measure.ratio(samples, row, BEST, cache, "readable_s") for row in rows}
            for cache in measure.caches(options)
        },
        "samples": samples,
    }
    measure.write(options.output, document)
    print("\n".join(table({**document, "ratios": {"cold": {}, "warm": {}} | document["ratios"]})))
    if any(not one["output_equal"] for one in samples):
        raise SystemExit("error: a loader gave other weights than the checkpoint's")


if __name__ == "__main__":
    main()
