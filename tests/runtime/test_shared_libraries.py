"""Torch's libraries are loaded beside imports of what hangs on none: which packages those are, and that a run does so."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import TIDALCTL, Chain, chained, distribution

from tidalctl.artifacts.bundle.code_pack import PackFile
from tidalctl.artifacts.bundle.manifest import PACK
from tidalctl.artifacts.trace.file import read_trace
from tidalctl.artifacts.trace.records import Import
from tidalctl.compiler.code.pure_modules import pure_packages

APP = """
import os
import pathlib
import sys
os.environ["OMP_NUM_THREADS"] = "1"
import tidalctl
import torch
os.environ["FSSPEC_CONFIG_DIR"] = os.environ.get("CONF", "/nowhere")
import fsspec.config
import torch.fx.experimental.symbolic_shapes  # which has sympy

@tidalctl.init(static=True)
def load(event):
    return torch.arange(2.0)

def handler(event, context):
    kept = load(event).tolist()
    names = sorted(name for name in sys.modules if name.partition(".")[0] in ("torch", "sympy", "mpmath"))
    pathlib.Path(event["to"]).write_text("\\n".join(names))  # no answer: what proves a bundle has modules of its own there
    return [*kept, torch.get_num_threads(), fsspec.config.conf_dir]
"""
HEEDED = [0.0, 1.0, 1, "/nowhere"]
OF_MODES = {"torch.utils._device", "torch._subclasses.schema_check_mode"}  # what torch asks for where a mode is entered or left


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("libraries")
    return chained(folder, APP, {"to": str(folder / "traced")})


def test_pure_is_what_holds_no_library_and_requires_none_that_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "alone", ["alone/__init__.py"], "fast; extra == 'quick'")
    distribution(tmp_path, "above", ["above/__init__.py"], "Alone>=1", "between")
    distribution(tmp_path, "between", ["between/__init__.py"], "above")
    distribution(tmp_path, "fast", ["fast/__init__.py", "fast/_core.cpython-311-x86_64-linux-gnu.so"])
    distribution(tmp_path, "on-fast", ["on_fast/__init__.py"], "fast (>=1)")
    distribution(tmp_path, "far", ["far/__init__.py"], "on_fast")
    distribution(tmp_path, "bundled", ["bundled/__init__.py", "bundled.libs/libz.so.1.2"])
    distribution(tmp_path, "lacking", ["lacking/__init__.py"], "not-here")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    packages = {"alone", "above", "between", "fast", "on_fast", "far", "bundled", "lacking", "unheard_of"}
    assert pure_packages(packages) == {"alone", "above", "between"}
    assert pure_packages({"above"}) == {"above"}
    monkeypatch.undo()
    assert pure_packages({"sympy", "mpmath", "torch", "numpy", "transformers", "peft", "jinja2"}) == {"sympy", "mpmath"}


def test_a_run_loads_libraries_beside_imports_and_imports_what_the_function_does_and_no_more(
    made: Chain, decoder: Chain
) -> None:
    """Torch's profiler and its dispatch modes would bring the compiler and sympy with them."""
    report = made.run({"to": str(made.folder / "run")}, "--timeline", "out.json")
    assert report["output"] == made.plain({"to": str(made.folder / "plain")}) == HEEDED
    assert report["unforeseen_modules"] == []
    events = json.loads((made.folder / "out.json").read_text())["traceEvents"]
    loading = next(event for event in events if event["name"] == "load libraries")
    imports = next(event for event in events if event["name"] == "imports")
    assert imports["ts"] <= loading["ts"] <= imports["ts"] + imports["dur"]
    pack = PackFile(made.bundle / PACK, made.manifest["pack"])
    pack.close()
    pure = {module.name.partition(".")[0] for module in pack.index.modules if module.pure}
    assert pure and pure_packages(pure) == pure

    plainly, started = (set((made.folder / name).read_text().splitlines()) for name in ("plain", "run"))
    assert "torch" in plainly and "torch._dynamo" not in plainly
    assert started == plainly
    listed = {record.name for record in read_trace(made.trace).of(Import)}
    assert {name for name in listed if name.partition(".")[0] in ("torch", "sympy", "mpmath")} - OF_MODES == plainly
    assert not {record.name for record in read_trace(decoder.trace).of(Import)} & {"sympy", "torch._dynamo"}


def test_what_the_function_sets_before_and_between_its_imports_is_heeded(made: Chain) -> None:
    """OpenMP reads OMP_NUM_THREADS when it is loaded; fsspec, which torch requires, hangs on no library: the function asks for both."""
    eagerly = made.start({"to": str(made.folder / "eager")}, "--json", "--eager", CONF="/other").report
    assert eagerly["output"] == [*HEEDED[:3], "/other"]
    assert eagerly["modules"]["packed"] <= 1, "the function's own module comes from the bundle either way"
    assert eagerly["modules"]["ordinary"] > 100


@pytest.mark.parametrize(
    "after_s", [0.25, 0.4, pytest.param(0.15, marks=pytest.mark.slow), pytest.param(0.6, marks=pytest.mark.slow)]
)
def test_an_interrupt_while_libraries_are_loaded_ends_the_process_and_not_by_a_crash(decoder: Chain, after_s: float) -> None:
    command = [*TIDALCTL, "run", str(decoder.bundle), "--event", json.dumps(decoder.events[0])]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=decoder.folder)
    time.sleep(after_s)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode in (130, 0, -signal.SIGINT), said  # before Python listens it is the kernel's; late it is too late
    assert b"terminate" not in said
