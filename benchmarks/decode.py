"""Does decoding from a bundle run at the plain function's speed once the first token is out?

    python benchmarks/decode.py app.bundle --event '{"prompt": "…", "max_new_tokens": 70}' [-n 5] > decode.json

Each process holds both states, the bundle's and one that plain init made, and decodes from them piece by piece in turn, so that a
machine whose speed drifts slows both alike. A process's figure is the median over pairs of pieces of bundle / plain, the first few
left out; the answer is the median over n processes. Every sample is in the JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from tidalctl.artifacts.bundle.provenance import read_provenance

WARM_UP = 4  # pieces after the first that still load kernels or grow caches

BOTH = """
import json, sys, time
from tidalctl import load_bundle
from tidalctl.function.init_mark import answer_inits_with

function = load_bundle(sys.argv[1])
event, module, handler = json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]
streams = {"bundle": function(event)}
next(streams["bundle"])          # init is answered from the bundle here
answer_inits_with(None)
streams["plain"] = getattr(sys.modules[module], handler)(event, None)
next(streams["plain"])           # and runs the ordinary way here
assert function.template.states.restored == 1 and function.template.fallback is None

times = {"bundle": [], "plain": []}
try:
    while True:
        order = ("bundle", "plain") if len(times["plain"]) % 2 else ("plain", "bundle")
        for variant in order:
            began = time.perf_counter()
            next(streams[variant])
            times[variant].append(time.perf_counter() - began)
except StopIteration:
    pass
print()
print(json.dumps(times))
"""


def one_process(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each piece, by variant, of one process."""
    manifest = json.loads((options.bundle / "manifest.json").read_bytes())
    provenance = read_provenance(options.bundle)
    function = manifest["function"]
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-c", BOTH, str(options.bundle.absolute())),
            *(options.event, function["module"], function["handler"]),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=provenance["cwd"],
    )
    if done.returncode != 0:
        raise SystemExit(f"{done.stderr}error: the process failed")
    times: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--event", required=True)
    parser.add_argument("-n", type=int, default=5, help="processes")
    options = parser.parse_args()
    samples = []
    ratios = []
    for process in range(options.n):
        times = one_process(options)
        pairs = list(zip(times["bundle"], times["plain"], strict=False))[WARM_UP:]
        if len(pairs) < 8:
            raise SystemExit(f"error: {len(pairs)} pieces are too few to time\nhint: take a prompt with a longer answer")
        ratios.append(statistics.median(bundle / plain for bundle, plain in pairs))
        samples.append({"process": process, "ratio": ratios[-1], "seconds": times})
        middle = {variant: statistics.median(found[WARM_UP:]) * 1e3 for variant, found in times.items()}
        print(
            f"process {process}: bundle {middle['bundle']:.1f} ms, plain {middle['plain']:.1f} ms a piece, "
            f"bundle / plain {ratios[-1]:.3f} over {len(pairs)} pairs",
            file=sys.stderr,
        )
    result = {
        "schema": 1,
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "samples": samples,
    }
    print(json.dumps(result, indent=1))
    print(
        f"bundle / plain: {result['ratio']:.3f}, median of {options.n} ({min(ratios):.3f} to {max(ratios):.3f})",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
