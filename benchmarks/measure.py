"""What the benchmark scripts share: children with a clock, a page cache in a proved state, turns, pairs and tables."""

import argparse
import compileall
import importlib
import json
import math
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.bench.page_cache import Residency, cached_files, evict, fill, with_bytecode
from tidalctl.report.machine import describe_machine

HERE = Path(__file__).parent
ROOT = HERE.parent
CACHES = ("warm", "cold")
TAIL = 5  # lines of a failed child's stderr that are shown
GIB = 2**30
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, Linux 5.14
Sample = dict[str, Any]


class Failed(Exception):
    """A child that did not do what it was started for; the message is the end of what it said."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- options


def parser(text: str | None, name: str) -> argparse.ArgumentParser:
    """The options that all scripts have."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--shape", choices=("1b", "tiny"), default="1b", help="of the Llama")
    made.add_argument("-n", type=int, default=5, help="turns")
    made.add_argument("--cache", choices=(*CACHES, "both"), default="both", help="the page cache before each run")
    made.add_argument("--only", nargs="+", metavar="ROW", help="only these rows, by name or by how their names begin")
    made.add_argument("--touch", type=float, default=5, metavar="GIB", help="memory to be touched before each run; 0: none")
    made.add_argument("--reuse", action="store_true", help="keep the bundles that are there")
    made.add_argument("--models", type=Path, default=ROOT / "build/models", help="where models are kept")
    made.add_argument("--peers", type=Path, default=ROOT / "build/peers", help="packages of requirements.txt")
    made.add_argument("--work", type=Path, default=ROOT / "build/bench", help="where traces and bundles go")
    made.add_argument("--output", type=Path, default=HERE / f"results/{name}.json")
    return made


def caches(options: argparse.Namespace) -> tuple[str, ...]:
    return CACHES if options.cache == "both" else (options.cache,)


def chosen(names: Sequence[str], only: Sequence[str] | None) -> list[str]:
    """The rows that were asked for, in their own order. A name stands for all that it begins."""
    if not only:
        return list(names)
    unknown = [want for want in only if not any(name.startswith(want) for name in names)]
    if unknown:
        raise SystemExit(f"error: there is no row {unknown[0]}\nhint: rows are {', '.join(names)}")
    return [name for name in names if any(name.startswith(want) for want in only)]


# -- models and bundles


def llama(options: argparse.Namespace) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Make the base model and what peers load in its place, and say which peers there are. Sets the functions' environment."""
    models = options.models.absolute()
    python("models.py", "--shape", options.shape, "--models", str(models), "--adapters", "0")
    base = models / options.shape / "base"
    os.environ |= {"LLAMA_BASE": str(base), "LLAMA_PEERS": str(options.peers.absolute()), "HF_HUB_OFFLINE": "1"}
    return base, python("peer_files.py", "--base", str(base), "--peers", str(options.peers))


def python(script: str, *arguments: str) -> Any:
    """The JSON that a script beside this one prints."""
    done = subprocess.run([sys.executable, str(HERE / script), *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def bundle(app: Path, events: Sequence[str], target: Path, reuse: bool) -> Path:
    """A bundle of the function, traced and compiled where it is not kept; and tidalctl's own bytecode, as an installation has it."""
    for room in ("tidalctl", "tidalctl.tracer", "tidalctl.compiler", "tidalctl.artifacts"):
        compileall.compile_dir(next(iter(importlib.import_module(room).__path__)), quiet=1)
    if not (reuse and target.is_dir()):
        target.parent.mkdir(parents=True, exist_ok=True)
        trace = target.with_suffix(".trace")
        given = [part for event in events for part in ("--event", event)]
        tidalctl("trace", str(app), *given, "-o", str(trace), "--force")
        tidalctl("compile", str(trace), "-o", str(target), "--force")
    return target


def foreseen(manifest: Manifest) -> list[str]:
    """Modules that the state needs, of which the function may import some in init only."""
    return list(dict.fromkeys(name.partition(":")[0] for name in manifest.globals))


def tidalctl(*arguments: str) -> None:
    if subprocess.run([sys.executable, "-P", "-m", "tidalctl", *arguments], check=False, cwd=ROOT).returncode:
        raise SystemExit(f"error: tidalctl {arguments[0]} failed")


# -- children


@dataclass(frozen=True)
class Child:
    """A process that is gone: when it was spawned, and the JSON on the last line that it printed."""

    spawned_ns: int
    report: Any


def run(program: str, *arguments: str, cwd: Path = ROOT) -> Child:
    """A fresh interpreter on a program's text. Raises Failed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        spawned = time.monotonic_ns()
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", program, *arguments], cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
        try:
            code = process.wait()
        except BaseException:  # raised again: an interrupt, too, must not leave the child behind
            process.kill()
            process.wait()
            raise
        err.seek(0)
        out.seek(0)
        lines = out.read().decode().splitlines()
        if code or not lines:
            raise Failed("\n".join(err.read().decode(errors="replace").splitlines()[-TAIL:]) or f"exit code {code}")
        return Child(spawned, json.loads(lines[-1]))


# Runs a function and says which files the process opened or mapped, besides its output.
SURVEY = """
import json, os, sys
opened = set()
def note(name, given):
    if name == "open" and isinstance(given[0], (str, bytes)):
        opened.add(os.fsdecode(given[0]))
sys.addaudithook(note)
root, module, handler, event = sys.argv[1:]
sys.path.insert(0, root)
import importlib
result = getattr(importlib.import_module(module), handler)(json.loads(event), None)
output = list(result) if hasattr(result, "__next__") else result
with open("/proc/self/maps") as maps:
    opened.update(line.split(maxsplit=5)[5].strip() for line in maps if line.count("/"))
print()
print(json.dumps({"output": output, "files": sorted(name for name in opened if name.startswith("/"))}))
"""


def survey(root: str, module: str, handler: str, event: str, cwd: str) -> tuple[Any, list[Path]]:
    """What a function answers, and all files that such a start reads, with the bytecode of its modules. Raises Failed."""
    report = run(SURVEY, root, module, handler, event, cwd=Path(cwd)).report
    return report["output"], on_disk(Path(name) for name in report["files"])


def on_disk(paths: Iterator[Path]) -> list[Path]:
    """Those that a cold start can find on disk only: neither the kernel's, nor what this interpreter itself is mapped from."""
    ours = {line.split(maxsplit=5)[5].strip() for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    virtual = ("/proc/", "/sys/", "/dev/")
    found = [path for path in paths if str(path) not in ours and not str(path).startswith(virtual)]
    return cached_files(with_bytecode(found))


# -- states of the machine


@dataclass(frozen=True)
class State:
    """How the machine was right before a run. Parts are told apart so that large files can't hide small ones."""

    cache: str
    proved: bool
    resident: dict[str, float]  # by part, the share of bytes in the page cache
    touch_s: float | None  # what touching memory took; long where the host had taken it back

    def fields(self) -> Sample:
        return {
            "cache": self.cache,
            "cache_proved": self.proved,
            "resident_before": {name: round(share, 4) for name, share in self.resident.items()},
            "touch_s": self.touch_s and round(self.touch_s, 3),
        }


def prepare(
    cache: str, reads: Mapping[str, Sequence[Path]], everything: Mapping[str, Sequence[Path]], touch_gib: float
) -> State:
    """Warm: what the run reads is read now. Cold: everything that any run reads is evicted. Then memory is touched."""
    found: dict[str, Residency] = {}
    for name, files in (reads if cache == "warm" else everything).items():
        if files:
            found[name] = fill(files) if cache == "warm" else evict(files)
    proved = bool(found) and all(part.warm if cache == "warm" else part.cold for part in found.values())
    return State(cache, proved, {name: part.share or 0.0 for name, part in found.items()}, touch(touch_gib))


TOUCH = """
import mmap, sys
memory = mmap.mmap(-1, int(sys.argv[1]))
memory.madvise(mmap.MADV_HUGEPAGE)
memory.madvise(int(sys.argv[2]))
print(len(memory))
"""


def touch(gib: float) -> float | None:
    """Have memory touched and freed again, so that the next process need not wait for the host to give it back. In seconds."""
    free = os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE
    size = int(min(gib * GIB, 0.8 * free))
    if size < mmap.PAGESIZE:
        return None
    began = time.monotonic()
    run(TOUCH, str(size), str(POPULATE_WRITE))
    return time.monotonic() - began


# -- turns, pairs, tables


def turns(rows: Sequence[str], count: int, states: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    """(page cache, turn, row): each row once a turn, in an order that turns around."""
    for cache in states:
        for turn in range(count):
            for row in rows if turn % 2 == 0 else reversed(rows):
                yield cache, turn, row


def values(samples: Sequence[Sample], row: str, cache: str, field: str) -> dict[int, float]:
    """By turn."""
    return {one["turn"]: one[field] for one in samples if (one["row"], one["cache"]) == (row, cache)}


def ratio(samples: Sequence[Sample], over: str, under: str, cache: str, field: str) -> Sample | None:
    """The median of the turns' own ratios. None without a pair."""
    above, below = values(samples, over, cache, field), values(samples, under, cache, field)
    pairs = [above[turn] / below[turn] for turn in above if turn in below]
    return {"median": statistics.median(pairs), "pairs": pairs} if pairs else None


def cell(found: Sequence[float]) -> str:
    """Median and range of some seconds; empty without any."""
    if not found:
        return ""
    middle = statistics.median(found)
    digits = 2 - min(max(math.floor(math.log10(middle)), -1), 2) if middle > 0 else 2
    return f"{middle:.{digits}f} s ({min(found):.{digits}f}–{max(found):.{digits}f})"


def times(found: Sample | None) -> str:
    return f"{found['median']:.2f}" if found else ""


def notes(samples: Sequence[Sample]) -> Iterator[str]:
    """What a reader should know besides the numbers."""
    for cache in CACHES:
        of = [one for one in samples if one["cache"] == cache]
        unproved = [one for one in of if not one["cache_proved"]]
        if unproved:
            yield f"note: the page cache was not proved to be {cache} in {len(unproved)} of {len(of)} runs"
    differing = [one for one in samples if one.get("output_equal") is False]
    if differing:
        yield f"note: other outputs in {len(differing)} runs: {', '.join(sorted({one['row'] for one in differing}))}"


def machine() -> Sample:
    return describe_machine(metadata.version("torch"))


def write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": 1, **document}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
