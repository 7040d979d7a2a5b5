"""Compile streams: the state is never in memory twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

GIGABYTES = 4

APP = f"""
import torch
import tidalctl

@tidalctl.init(static=True)
def load(event):
    # one tensor after the other, so that building it takes no more than it holds
    return [torch.full((256, 2**20), float(i), dtype=torch.float32) for i in range({GIGABYTES})]

def handler(event, context):
    return [float(t[0, 0]) for t in load(event)]
"""

MEASURED = """
import json, resource, subprocess, sys
done = subprocess.run([sys.executable, "-P", "-m", "tidalctl", *sys.argv[1:]])
print(json.dumps([done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024]))
"""


def measured(*arguments: str) -> int:
    """The peak resident memory, in bytes, of the largest process of one command."""
    done = subprocess.run([sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True, timeout=600, check=True)
    code, peak = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return int(peak)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compile_needs_no_more_memory_than_the_state_and_a_tenth(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    measured("trace", str(tmp_path / "app.py"), "--event", "{}", "-o", str(tmp_path / "app.trace"))
    peak = measured("compile", str(tmp_path / "app.trace"), "-o", str(tmp_path / "app.bundle"))
    state = GIGABYTES * 2**30
    assert (tmp_path / "app.bundle" / "weights.safetensors").stat().st_size >= state
    assert peak < 1.1 * state, f"{peak / state:.3f} of the state"
