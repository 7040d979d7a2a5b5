"""What does a start cost on a GPU, and is it right there?

    python benchmarks/gpu.py [-n 3] [--shape 8b|1b|tiny] [--minutes 8] [--skip-tests] [--output FILE]

The tests of the CUDA path come first; without them green nothing is measured (--skip-tests: they were, just before). Then a Llama with
random weights (8B where device, memory and disk have room for it, else 1.1B), made here, traced and compiled: whole processes to the
first token against two ways of `from_pretrained`, with weights and code evicted or in memory; in one warm process, states streamed from
the page cache and states that were on the device before the request, against the handler with its state kept, and against the link's
measured bandwidth; decoding against plain. Each part is written as soon as it is there; what there is no time left for is left out, and
said. Exits with 1 where a part failed or was cut short, with 2 where torch sees no GPU.

Where 8B and the tests don't fit into one call of `--minutes`: the tests and `--shape 1b` first, then `--skip-tests --shape 8b`.

Needs nothing from outside: tidalctl and what it depends on, transformers, accelerate, pytest, pytest-timeout, hypothesis and numpy are
to be installed; where nothing can be fetched, from their wheels: `pip install --no-index --find-links WHEELS tidalctl`.
"""

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
from measure import GIB, HERE, ROOT, Failed, Sample, say

from tidalctl.runtime.weights.direct_io import available_memory

APP = HERE / "apps/llama_cuda.py"
EVENT = {"prompt": [(37 * i + 11) % 256 for i in range(32)], "tokens": 4}
LONG = {**EVENT, "tokens": 40}
LAYERS = {"tiny": (64, 176, 2, 4, 2, 256), "1b": (2048, 5632, 22, 32, 4, 32000), "8b": (4096, 14336, 32, 32, 8, 128256)}
ROOM = {
    "device": 60 * GIB,
    "memory": 56 * GIB,
    "disk": 44 * GIB,
}  # that 8B needs: two states, checkpoint and bundle
ROWS = {
    "bundle": "tidalctl, from the bundle",
    "device_map": '`from_pretrained(device_map="cuda")`',
    "to": '`from_pretrained(…).to("cuda")`',
}
HOST_ROWS = {
    "warm": "handler, state kept",
    "streamed": "a state streamed from the page cache",
    "resident": "a state on the device before the request",
}

ROOM_HERE = """
import json, torch
if not torch.cuda.is_available():
    print(json.dumps(None))
else:
    properties = torch.cuda.get_device_properties(0)
    print(json.dumps({"name": properties.name, "memory_bytes": properties.total_memory, "free_bytes": torch.cuda.mem_get_info()[0],
                      "cuda": torch.version.cuda}))
"""

# A checkpoint as from_pretrained takes it; on the device random numbers take no time.
MAKE = """
import json, sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
folder, numbers = sys.argv[1], json.loads(sys.argv[2])
names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")
config = LlamaConfig(**dict(zip(names, numbers)), max_position_embeddings=2048, tie_word_embeddings=False, dtype=torch.bfloat16)
torch.manual_seed(0)
torch.set_default_dtype(torch.bfloat16)
with torch.device("cuda"):
    model = LlamaForCausalLM(config)
model.save_pretrained(folder, max_shard_size="100GB")
print("{}")
"""

BUNDLE = """
import sys
sys.argv[0] = "tidalctl"
from tidalctl.__main__ import main
main()
"""

PLAIN = """
import importlib, json, sys, time
sys.path.insert(0, sys.argv[1])
pieces = importlib.import_module(sys.argv[2]).handler(json.loads(sys.argv[3]), None)
output = [next(pieces)]
first = time.monotonic_ns()
output += pieces
print(json.dumps({"first_token_ns": first, "output": output}))
"""

# One process as a host keeps it: everything imported, kernels loaded, and a request on it.
HOST = """
import gc, json, sys, time
from tidalctl import load_bundle
from tidalctl.function.init_mark import answer_inits_with
path, event, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
function = load_bundle(path, io="buffered")
outputs = [list(function(event))]
import torch
assert function.template.fallback is None, function.template.fallback
weights = function.template.weights

def timed():
    gc.collect()
    torch.cuda.synchronize()
    began = time.perf_counter()
    pieces = iter(function(event))
    output = [next(pieces)]
    taken = time.perf_counter() - began
    outputs.append(output + list(pieces))
    return taken

def bandwidth():
    size = 2**30
    source, target = torch.empty(size, dtype=torch.uint8, pin_memory=True), torch.empty(size, dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
    began = time.perf_counter()
    target.copy_(source, non_blocking=True)
    torch.cuda.synchronize()
    return size / (time.perf_counter() - began)

found = {"bytes": sum(group.nbytes for group in weights.on_device), "bandwidth": [bandwidth() for _ in range(6)][1:]}
timed()
found["streamed"] = [timed() for _ in range(count)]
found["resident"] = []
for _ in range(count):
    function.template.make_ready()
    found["resident"].append(timed())
kept, ours = {}, None
def keep(mark, given, named):
    if mark.name not in kept:
        kept[mark.name] = ours(mark, given, named)
    return kept[mark.name]
ours = answer_inits_with(keep)
timed()
found["warm"] = [timed() for _ in range(count)]
found["equal"] = all(output == outputs[0] for output in outputs)
print()
print(json.dumps(found))
"""


def correct() -> Sample:
    """The tests of the CUDA path. Ends the script where they are not all green."""
    say("tests/test_cuda.py …")
    began = time.monotonic()
    words = ["-o", "addopts=", "-q", "-rs", "-x", "-m", "not slow", "--timeout", "300", "tests/test_cuda.py"]
    done = subprocess.run([sys.executable, "-P", "-m", "pytest", *words], cwd=ROOT, capture_output=True, text=True)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode or "skipped" in done.stdout:
        raise SystemExit(f"{done.stdout[-6000:]}\nerror: the CUDA path is not right here; nothing was measured")
    return {"result": last, "seconds": round(time.monotonic() - began, 1)}


def shape_for(device: Sample, asked: str | None, work: Path) -> str:
    memory = available_memory()
    here = {"device": device["free_bytes"], "memory": memory, "disk": shutil.disk_usage(work).free}
    short = [name for name, room in ROOM.items() if here[name] < room]
    if not asked and short:
        say(f"1.1B, since {short[0]} has {here[short[0]] / GIB:.0f} GiB free of the {ROOM[short[0]] / GIB:.0f} that 8B needs")
    return asked or ("1b" if short else "8b")


def made(options: Any, shape: str) -> tuple[Path, Path]:
    """The checkpoint and the bundle. Sets the function's environment."""
    base = options.work.absolute() / f"cuda-{shape}"
    if not base.is_dir():
        partial = base.with_name(f"{base.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        measure.run(MAKE, str(partial), json.dumps(LAYERS[shape]))
        partial.rename(base)
    os.environ |= {"LLAMA_BASE": str(base), "LLAMA_PLACE": "device_map", "HF_HUB_OFFLINE": "1"}
    return base, measure.bundle(APP, [json.dumps(EVENT)], options.work.absolute() / f"cuda-{shape}.bundle", options.reuse)


def start(row: str, bundle: Path) -> Sample:
    """One process, from its spawn to its first token. Raises Failed."""
    if row == "bundle":
        child = measure.run(BUNDLE, "run", str(bundle), "--event", json.dumps(EVENT), "--json")
    else:
        os.environ["LLAMA_PLACE"] = row
        try:
            child = measure.run(PLAIN, str(APP.parent), APP.stem, json.dumps(EVENT))
        finally:
            os.environ["LLAMA_PLACE"] = "device_map"
    report = child.report
    if report.get("fallback"):
        raise Failed(f"init ran the ordinary way: {report['fallback']}")
    kept = {name: report[name] for name in ("phases", "io", "strategy", "fallback", "stalled_s") if name in report}
    return {"ttft_s": (report["first_token_ns"] - child.spawned_ns) / 1e9, "output": report["output"], **kept}


def processes(options: Any, base: Path, bundle: Path, deadline: float) -> Iterator[Sample]:
    """A sample of each row in each state of the page cache, turn by turn; a start that failed is one with `failed`."""
    output, opened = measure.survey(str(APP.parent), APP.stem, "handler", json.dumps(EVENT), str(ROOT))
    code = [path for path in opened if path.suffix != ".safetensors"]
    weights = {row: list((bundle if row == "bundle" else base).glob("*.safetensors")) for row in ROWS}
    everything = {
        "weights": [*weights["bundle"], *weights["to"]],
        "code": [*code, *(p for p in bundle.rglob("*") if p.is_file())],
    }
    slowest = 0.0
    for turn in range(options.n):
        for cache, _, row in measure.turns(list(ROWS), 1, measure.caches(options)):
            if time.monotonic() + slowest > deadline:
                say(f"no time left for {cache} turn {turn + 1} of {row}")
                continue
            began = time.monotonic()
            state = measure.prepare(cache, {"weights": weights[row], "code": code}, everything, options.touch)
            sample = {"row": row, "turn": turn, **state.fields()}
            try:
                found = start(row, bundle)
            except Failed as error:
                say(f"{turn + 1}/{options.n} {cache} {row} failed: {error}")
                yield {**sample, "failed": str(error)}
                continue
            slowest = max(slowest, time.monotonic() - began)
            say(f"{turn + 1}/{options.n} {cache} {row}: {found['ttft_s']:.3f} s")
            equal = found.pop("output") == output
            yield {**sample, **found, "output_equal": equal}


def decoding(bundle: Path) -> Sample:
    command = [sys.executable, str(HERE / "decode.py"), str(bundle), "--event", json.dumps(LONG), "-n", "1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {"failed": done.returncode}


def floors(host: Sample) -> Sample:
    """What can't be avoided, in seconds, and the rows' medians over it."""
    middle = {name: statistics.median(host[name]) for name in HOST_ROWS}
    floor = max(host["bytes"] / statistics.median(host["bandwidth"]), middle["warm"])
    return {"floor_s": floor, "streamed": middle["streamed"] / floor, "resident": middle["resident"] / middle["warm"]}


def table(document: Sample) -> Iterator[str]:
    yield f"{document['shape']} on {document['device']['name']}; {document['tests']['result']}"
    yield ""
    yield "| first token, whole process | files in memory | evicted |"
    yield "| --- | --- | --- |"
    samples = [one for one in document["samples"] if "failed" not in one]
    for row, label in ROWS.items():
        cells = [measure.cell(list(measure.values(samples, row, c, "ttft_s").values())) for c in ("warm", "cold")]
        yield f"| {label} | {' | '.join(cells)} |"
    if host := document.get("host"):
        over = document["ratios"]
        yield ""
        yield "| first token, warm process | | over what can't be avoided |"
        yield "| --- | --- | --- |"
        for row, label in HOST_ROWS.items():
            yield f"| {label} | {measure.cell(host[row])} | {f'{over[row]:.2f}' if row in over else ''} |"
        speed = statistics.median(host["bandwidth"])
        yield f"link {speed / 1e9:.1f} GB/s, {host['bytes'] / 1e9:.2f} GB of weights: {over['floor_s']:.3f} s can't be avoided"
        if not host["equal"]:
            yield "note: answers differed"
    if "ratio" in document.get("decode", {}):
        yield f"decoding, bundle / plain: {document['decode']['ratio']:.3f}"
    yield from measure.notes(samples)
    for failure in document["failures"]:
        yield f"note: {failure}"


@contextlib.contextmanager
def cut_short(seconds: float) -> Iterator[None]:
    """Whatever runs in here after so many seconds ends with Failed, so that what was measured before is not lost with it."""

    def ring(number: int, frame: Any) -> None:
        raise Failed(f"cut short after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measured(options: Any, document: Sample, end: float) -> Iterator[None]:
    """Fills the document, and yields when there is more in it."""
    document["tests"] = {"result": "tests skipped"} if options.skip_tests else correct()
    options.work.mkdir(parents=True, exist_ok=True)
    document["shape"] = shape_for(document["device"], options.shape, options.work)
    base, bundle = made(options, document["shape"])
    yield
    try:
        host = measure.run(HOST, str(bundle), json.dumps(EVENT), "5").report
        document |= {"host": host, "ratios": floors(host)}
    except Failed as error:
        document["failures"].append(f"the warm process failed: {error}")
    yield
    if time.monotonic() < end - 120:
        document["decode"] = decoding(bundle)
        yield
    for sample in processes(options, base, bundle, end):
        document["samples"].append(sample)
        yield


def main() -> int:
    parser = measure.parser(__doc__, "gpu")
    parser.set_defaults(n=3, shape=None, touch=0)
    next(action for action in parser._actions if action.dest == "shape").choices = tuple(LAYERS)
    parser.add_argument("--minutes", type=float, default=8, help="of device time, all in all")
    parser.add_argument("--skip-tests", action="store_true", help="of the CUDA path, which were green just before")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    device = measure.run(ROOM_HERE).report
    if device is None:
        say("error: torch sees no GPU here\nhint: run this where torch.cuda.is_available() says True")
        return 2
    document: Sample = {"machine": measure.machine(), "device": device, "event": EVENT, "samples": [], "failures": []}
    try:
        with cut_short(end - time.monotonic()):
            for _ in measured(options, document, end):
                measure.write(options.output, document)
    except Failed as error:
        document["failures"].append(str(error))
        measure.write(options.output, document)
    if "shape" in document:
        print("\n".join(table(document)))
    for failure in document["failures"]:
        say(f"error: {failure}")
    return 1 if document["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
