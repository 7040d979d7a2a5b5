"""What is the order of first use worth, where loading takes as long as computing?

    python benchmarks/order.py [-n 5] [--shape 1b|tiny] [--output FILE]

A 1.1B Llama in a process that has imported everything, over a link of such a bandwidth that all weights take as long as computing
the first token does. Groups arrive in the order of the trace, in that of a stock checkpoint (by name), or reversed; a needed group
waits for its turn. Each turn has a start in each order and one with everything resident; a ratio is the median of the turns' own.
"""

import statistics
from collections.abc import Iterator
from typing import Any

import measure
import paced

ROWS = {
    "traced": "the trace's first uses",
    "default": "by name, as a stock checkpoint lies",
    "reversed": "the trace's, reversed",
    "resident": "everything resident",
}


def sample_all(options: Any, path: Any) -> Iterator[measure.Sample]:
    paced.start(path, True)  # a warm-up
    settled = [paced.start(path, True) for _ in range(3)]
    compute = statistics.median(one["compute_s"] for one in settled)
    pace = settled[0]["bytes"] / compute
    measure.say(f"the first token takes {compute:.2f} s to compute; the link is {pace / 1e9:.2f} GB/s")
    for _, turn, row in measure.turns(list(ROWS), options.n, ("warm",)):
        state = measure.prepare("warm", {"weights": list(path.glob("*.safetensors"))}, {}, 0)
        limits = {"resident": settled[0]["bytes"], "order": "traced"} if row == "resident" else {"order": row}
        found = paced.start(path, True, pace=pace, **limits)
        measure.say(f"{turn + 1}/{options.n} {row}: {found['ttft_s']:.3f} s")
        equal = found["output"] == settled[0]["output"]
        yield {"row": row, "turn": turn, "pace": pace, **state.fields(), **found, "output_equal": equal}


def table(document: measure.Sample) -> Iterator[str]:
    samples = document["samples"]
    yield "| order of arrival | first token | beside the trace's |"
    yield "| --- | --- | --- |"
    for row, label in ROWS.items():
        ttft = [one["ttft_s"] for one in samples if one["row"] == row]
        yield f"| {label} | {measure.cell(ttft)} | {measure.times(document['ratios'].get(row))} |"
    yield ""
    yield from measure.notes(samples)


def main() -> None:
    options = measure.parser(__doc__, "order").parse_args()
    samples = list(sample_all(options, paced.bundle(options)))
    ratios = {row: measure.ratio(samples, row, "traced", "warm", "ttft_s") for row in ROWS}
    document = {"machine": measure.machine(), "prompt": paced.PROMPT, "ratios": ratios, "samples": samples}
    measure.write(options.output, document)
    print("\n".join(table(document)))


if __name__ == "__main__":
    main()
