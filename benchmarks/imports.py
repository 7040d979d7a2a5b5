"""What do imports cost: as they are, with the collector paused, from the bundle's code pack, with both, and with the import cache?

    python benchmarks/imports.py [-n 7] [--cache warm|cold|both] [--only ROW …] [--shape tiny|1b] [--output FILE]

The function is the Llama of apps/llama_base.py, which imports torch and transformers, and every row imports the same modules: those
of the function, and those that its state needs. Imports are the same for every shape, so the tiny one stands for all: its weights,
which a start from a bundle reads beside, weigh nothing. Rows with the pack go the way of `tidalctl run` up to the handler, and read
shared libraries ahead as it does. Two times: from exec, which has tidalctl's own start in it, and the imports alone.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
from measure import Failed, Sample, say

from tidalctl.artifacts.bundle.manifest import PACK
from tidalctl.artifacts.errors import TidalError
from tidalctl.bench.page_cache import cached_files
from tidalctl.bench.subject import Subject, open_subject

EVENT = json.dumps({"prompt": [1, 2, 3, 4], "tokens": 1})
ROWS = {
    "plain": "as they are",
    "paused": "garbage collector paused",
    "pack": "code pack",
    "both": "code pack, and the collector paused",
    "all": "the import cache besides, as `tidalctl run` has it",
}

# arguments: root, module, handler, event, bundle, the modules that the state needs
PLAIN = """
import gc, importlib, json, sys, time
root, module, handler, event, bundle, foreseen = sys.argv[1:]
sys.path.insert(0, root)
{pause}
began = time.monotonic_ns()
importlib.import_module(module)
for name in json.loads(foreseen):
    importlib.import_module(name)
ended = time.monotonic_ns()
modules = sorted(name for name in sys.modules if not name.startswith("tidalctl"))
print(json.dumps({{"imports_s": (ended - began) / 1e9, "imported_ns": ended, "modules": modules, "packed": 0, "fallback": None}}))
"""
PACKED = """
import gc, json, sys, time
from pathlib import Path
from tidalctl.runtime.template import Template
from tidalctl.runtime.process.timeline import Timeline
root, module, handler, event, bundle, foreseen = sys.argv[1:]
now = time.monotonic_ns()
template = Template(Path(bundle), Timeline(now, now))  # pauses the collector
{pause}
if not {recalls}:
    template.imports.import_cache.begin = lambda check: {{}}
template.prepare(json.loads(event))
ended = time.monotonic_ns()
spans = [end - begin for name, begin, end, thread in template.timeline.spans if name == "imports"]
modules = sorted(name for name in sys.modules if not name.startswith("tidalctl"))
report = {{"imports_s": sum(spans) / 1e9, "imported_ns": ended, "modules": modules}}
counts = template.imports.counts()
fallback = template.fallback.text if template.fallback else counts["unusable"]
template.wait()
print(json.dumps({{**report, "packed": counts["packed"], "fallback": fallback}}))
"""
PROGRAMS = {
    "plain": PLAIN.format(pause=""),
    "paused": PLAIN.format(pause="gc.disable()"),
    "pack": PACKED.format(pause="gc.enable()", recalls=False),
    "both": PACKED.format(pause="", recalls=False),
    "all": PACKED.format(pause="", recalls=True),
}


def arguments_of(subject: Subject) -> list[str]:
    plain = subject.plain
    return [plain.root, plain.module, plain.handler, EVENT, str(subject.path), json.dumps(measure.foreseen(subject.manifest))]


def start(row: str, subject: Subject) -> tuple[Any, float]:
    """What a row's process says, and how long it was from exec until all was imported. Raises Failed."""
    child = measure.run(PROGRAMS[row], *arguments_of(subject), cwd=Path(subject.plain.cwd))
    return child.report, (child.report["imported_ns"] - child.spawned_ns) / 1e9


def read_by_all(subject: Subject) -> dict[str, list[Path]]:
    """The files whose place in memory matters, the weights apart from the code."""
    plain = subject.plain
    _, opened = measure.survey(plain.root, plain.module, plain.handler, EVENT, plain.cwd)
    weights = {*subject.weights, *subject.read}
    code = [path for path in cached_files([*opened, *subject.everything]) if path not in weights]
    return {"code": code, "weights": list(subject.weights)}


def sample_all(subject: Subject, rows: list[str], options: Any, absent: dict[str, str]) -> Iterator[Sample]:
    say("survey: plain")
    everything = read_by_all(subject)
    expected: list[str] = []  # modules of the first row
    for row in rows:
        say(f"warm-up: {row}")
        try:
            report, _ = start(row, subject)
        except Failed as error:
            absent[row] = str(error).splitlines()[-1]
            continue
        expected = expected or report["modules"]
    for cache, turn, row in measure.turns([row for row in rows if row not in absent], options.n, measure.caches(options)):
        state = measure.prepare(cache, everything, everything, options.touch)
        report, whole = start(row, subject)
        say(f"{cache} {turn + 1}/{options.n} {row}: {whole:.3f} s, imports {report['imports_s']:.3f} s")
        yield {
            "turn": turn,
            "row": row,
            **state.fields(),
            "imported_s": whole,
            "imports_s": report["imports_s"],
            "modules": len(report["modules"]),
            "packed": report["packed"],
            "fallback": report["fallback"],
            "differing": sorted(set(report["modules"]) ^ set(expected)),
        }


def table(document: Sample) -> Iterator[str]:
    samples = document["samples"]
    for field, title in (("imported_s", "exec to imported"), ("imports_s", "imports alone")):
        yield f"| {title} | page cache evicted | of plain | files in memory | of plain |"
        yield "| --- | --- | --- | --- | --- |"
        for row in document["rows"]:
            if cause := document["absent"].get(row):
                yield f"| {ROWS[row]} | not measured: {cause} | | | |"
                continue
            cells = []
            for cache in ("cold", "warm"):
                cells.append(measure.cell(list(measure.values(samples, row, cache, field).values())))
                cells.append(measure.times(None if row == "plain" else measure.ratio(samples, row, "plain", cache, field)))
            yield f"| {ROWS[row]} | {' | '.join(cells)} |"
        yield ""
    yield from measure.notes(samples)
    counts = {one["row"]: f"{one['row']}: {one['modules']} ({one['packed']} from the pack)" for one in samples}
    yield f"modules after the imports: {', '.join(counts.values())}"
    for row, cause in dict.fromkeys((one["row"], one["fallback"]) for one in samples if one["fallback"]):
        yield f"note: {row}: {cause}"


def main() -> None:
    parser = measure.parser(__doc__, "imports")
    parser.set_defaults(shape="tiny", touch=1, n=7)
    options = parser.parse_args()
    rows = measure.chosen(list(ROWS), options.only)
    measure.llama(options)
    target = options.work.absolute() / f"imports-{options.shape}.bundle"
    try:
        subject = open_subject(measure.bundle(measure.HERE / "apps/llama_base.py", [EVENT], target, options.reuse))
        absent = {} if PACK in subject.manifest.files else dict.fromkeys(("pack", "both", "all"), f"the bundle holds no {PACK}")
        samples = list(sample_all(subject, [row for row in rows if row not in absent], options, absent))
    except TidalError as error:
        raise SystemExit(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else "")) from None
    except Failed as error:
        raise SystemExit(f"error: {error}") from None
    document = {
        "machine": measure.machine(),
        "bundle": {"digest": subject.manifest.digest, "shape": options.shape},
        "touched_gib": options.touch,
        "rows": rows,
        "absent": absent,
        "ratios": {
            cache: {row: measure.ratio(samples, row, "plain", cache, "imports_s") for row in rows}
            for cache in measure.caches(options)
        },
        "samples": samples,
    }
    measure.write(options.output, document)
    print("\n".join(table(document)))


if __name__ == "__main__":
    main()
