"""How does the time to the first token fall with the resident prefix, and does `tidalctl plan` know it beforehand?

    python benchmarks/resident.py [-n 3] [--shape 1b|tiny] [--output FILE]

A 1.1B Llama, whole processes over a slow link. `tidalctl plan` is asked first, from the bundle alone; then the prefix goes from
nothing to everything. A row's error is that of its median.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
import paced

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def planned(path: Path, pace: float, resident: int) -> Any:
    command = [sys.executable, "-P", "-m", "tidalctl", "plan", str(path), "--json"]
    command += ["--bandwidth", f"{round(pace)}B/s", "--resident", str(resident)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)["plan"]


def sample_all(options: Any, path: Path) -> Iterator[measure.Sample]:
    whole = paced.start(path, False)
    pace = whole["bytes"] / (2 * whole["ttft_s"])  # without a prefix, loading takes twice as long as all the rest
    measure.say(f"the link is {pace / 1e9:.2f} GB/s")
    rows = {f"{share:.0%}": round(whole["bytes"] * share) for share in SHARES}
    plans = {row: planned(path, pace, resident) for row, resident in rows.items()}
    for _, turn, row in measure.turns(list(rows), options.n, ("warm",)):
        state = measure.prepare("warm", {"weights": list(path.glob("*.safetensors"))}, {}, 0)
        found = paced.start(path, False, pace=pace, resident=rows[row])
        plan = plans[row]
        measure.say(f"{turn + 1}/{options.n} {row} resident: {found['ttft_s']:.3f} s, planned {plan['ttft_s']:.3f} s")
        fields = {"resident": rows[row], "pace": pace, "planned_s": plan["ttft_s"], "planned_prefix": plan["resident_prefix"]}
        yield {
            "row": row,
            "turn": turn,
            **fields,
            **state.fields(),
            **found,
            "output_equal": found["output"] == whole["output"],
        }


def errors(samples: list[measure.Sample]) -> dict[str, float]:
    """By row: how far the plan is off the median, as a share of it."""
    found = {}
    for row in dict.fromkeys(one["row"] for one in samples):
        of = [one for one in samples if one["row"] == row]
        median = statistics.median(one["ttft_s"] for one in of)
        found[row] = of[0]["planned_s"] / median - 1
    return found


def table(document: measure.Sample) -> Iterator[str]:
    yield "| resident | first token | planned | off by |"
    yield "| --- | --- | --- | --- |"
    for row, error in document["errors"].items():
        of = [one for one in document["samples"] if one["row"] == row]
        ttft, size = [one["ttft_s"] for one in of], of[0]["resident"] / 1e9
        yield f"| {row}, {size:.2f} GB | {measure.cell(ttft)} | {of[0]['planned_s']:.2f} s | {error:+.1%} |"
    yield ""
    yield f"planned resident prefix that makes loading vanish: {document['samples'][0]['planned_prefix'] / 1e9:.2f} GB"
    yield from measure.notes(document["samples"])


def main() -> None:
    options = measure.parser(__doc__, "resident").parse_args()
    samples = list(sample_all(options, paced.bundle(options)))
    document = {"machine": measure.machine(), "prompt": paced.PROMPT, "errors": errors(samples), "samples": samples}
    measure.write(options.output, document)
    print("\n".join(table(document)))


if __name__ == "__main__":
    main()
