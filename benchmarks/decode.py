"""Does decoding from a bundle run at the plain function's speed once the first token is out?

    python benchmarks/decode.py app.bundle --event '{"prompt": "…", "max_new_tokens": 64}' [-n 5] > decode.json

Fresh processes in pairs, the order swapped each time. A run's figure is the median time between two pieces, the first few left
out; the answer is the ratio bundle / plain, pair by pair. Every sample is in the JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

WARM_UP = 4  # pieces after the first that still load kernels or grow caches

PLAIN = """
import importlib, json, sys, time
root, module, handler, event = sys.argv[1:5]
sys.path.insert(0, root)
function = getattr(importlib.import_module(module), handler)
times = []
for piece in function(json.loads(event), None):
    times.append(time.perf_counter())
print(json.dumps(times))
"""

BUNDLE = """
import json, sys, time
from tidalctl import load_bundle
function = load_bundle(sys.argv[1])
times = []
for piece in function(json.loads(sys.argv[2])):
    times.append(time.perf_counter())
print(json.dumps(times))
"""


def gaps(command: list[str], cwd: str) -> list[float]:
    """Seconds between the pieces of one run, after the warm-up."""
    done = subprocess.run([sys.executable, "-P", *command], capture_output=True, text=True, check=True, cwd=cwd)
    times = json.loads(done.stdout.splitlines()[-1])
    if len(times) < WARM_UP + 8:
        raise SystemExit(f"error: {len(times)} pieces are too few to time\nhint: take a prompt with a longer answer")
    return [after - before for before, after in zip(times[WARM_UP:], times[WARM_UP + 1 :], strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--event", required=True)
    parser.add_argument("-n", type=int, default=5, help="pairs")
    options = parser.parse_args()
    manifest = json.loads((options.bundle / "manifest.json").read_bytes())
    provenance = json.loads((options.bundle / "provenance.json").read_bytes())
    function = manifest["function"]
    commands = {
        "plain": ["-c", PLAIN, provenance["root"], function["module"], function["handler"], options.event],
        "bundle": ["-c", BUNDLE, str(options.bundle.absolute()), options.event],
    }
    samples: list[dict[str, object]] = []
    ratios = []
    for pair in range(options.n):
        order = ("plain", "bundle") if pair % 2 == 0 else ("bundle", "plain")
        median = {}
        for variant in order:
            found = gaps(commands[variant], provenance["cwd"])
            median[variant] = statistics.median(found)
            samples.append({"variant": variant, "pair": pair, "median_s": median[variant], "gaps_s": found})
            print(f"pair {pair}: {variant:<7} {median[variant] * 1e3:7.2f} ms a piece, {len(found)} pieces", file=sys.stderr)
        ratios.append(median["bundle"] / median["plain"])
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
        f"bundle / plain: {result['ratio']:.3f}, median of {options.n} pairs ({min(ratios):.3f} to {max(ratios):.3f})",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
