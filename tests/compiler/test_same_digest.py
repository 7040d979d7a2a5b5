"""Two traces of the same inputs, made in different folders and at different speeds, give the same bundle, byte for byte."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Chain, chained, tidalctl

from tidalctl.artifacts.bundle.manifest import PROVENANCE

THREADS = """
import importlib
from concurrent.futures import ThreadPoolExecutor

import torch

import tidalctl

POOL = ThreadPoolExecutor(4)
IMPORTS = [POOL.submit(importlib.import_module, name) for name in ("sqlite3", "mailbox", "jinja2", "xmlrpc.client", "curses")]


@tidalctl.init(static=True)
def load():
    [done.result() for done in IMPORTS]
    POOL.shutdown()
    return torch.ones(8)


def handler(event, context):
    return float(load().sum())
"""


@contextlib.contextmanager
def load() -> Iterator[None]:
    """Somebody else's process, which wants a core for itself."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def contents(bundle: Path) -> dict[str, bytes]:
    files = {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    assert files.pop(PROVENANCE)
    return files


def differing(one: Chain, other: Chain) -> list[str]:
    files, others = contents(one.bundle), contents(other.bundle)
    return sorted(name for name in files.keys() | others.keys() if files.get(name) != others.get(name))


def test_a_second_trace_elsewhere_and_under_load_gives_the_same_bundle(decoder: Chain, tmp_path: Path) -> None:
    other = Chain(tmp_path / "a" / "longer" / "way", decoder.events)
    shutil.copytree(decoder.project, other.project, ignore=shutil.ignore_patterns("__pycache__"))
    with load():
        tidalctl("trace", "project/app.py", "--event", json.dumps(other.events[0]), cwd=other.folder).ok()
    tidalctl("compile", "app.trace", cwd=other.folder).ok()
    assert differing(decoder, other) == []
    assert other.manifest["digest"] == decoder.manifest["digest"]


@pytest.mark.slow  # the quick one has no threads
def test_imports_of_threads_which_race_one_another_come_in_the_same_order(tmp_path: Path) -> None:
    with load():
        first, *others = [chained(tmp_path / name, THREADS) for name in ("one", "two", "three")]
    assert [differing(first, other) for other in others] == [[], []]
