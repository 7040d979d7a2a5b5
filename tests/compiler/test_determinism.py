"""The same trace and the same inputs give the same digest, whoever compiles, wherever."""

import sys
from pathlib import Path

from conftest import Chain, tidalctl

SETS = """
import torch
import tidalctl


@tidalctl.init(static=True)
def load(event):
    words = {"one", "two", "three", "four", "five", "six"}
    return {"words": words, "frozen": frozenset(words), "index": {word: len(word) for word in words}, "weight": torch.ones(3)}


def handler(event, context):
    state = load(event)
    return sorted(state["words"])
"""


def test_the_digest_depends_on_nothing_but_the_trace_and_its_inputs(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "app.py").write_text(SETS)
    trace = tmp_path / "app.trace"
    tidalctl("trace", project / "app.py", "--event", "{}", "-o", trace, cwd=tmp_path, env={"PYTHONHASHSEED": "7"}).ok()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    manifests = []
    for folder, umask, seed, more in (
        (tmp_path, 0o022, "1", {"LC_ALL": "C"}),
        (elsewhere, 0o077, "2", {"LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"}),
    ):
        env = {"PYTHONHASHSEED": seed, "HOME": str(folder), **more}
        tidalctl("compile", trace, "-o", "out.bundle", cwd=folder, env=env, umask=umask).ok()
        manifests.append((folder / "out.bundle" / "manifest.json").read_bytes())
    assert manifests[0] == manifests[1]


def test_a_manifest_holds_no_path_of_the_machine(decoder: Chain) -> None:
    text = (decoder.bundle / "manifest.json").read_text(encoding="utf-8")
    assert str(decoder.folder) not in text
    assert sys.prefix not in text
