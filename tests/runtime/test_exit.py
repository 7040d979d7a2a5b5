"""A run ends without tearing down, and loses nothing that a plain process would have written at its end."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import TIDALCTL, Chain, chained

WRITES = """
import atexit, os, sys
import torch
import tidalctl

held = []

def write(name, text):
    held.append(open(os.path.join(os.environ["LEFT"], name), "w"))
    held[-1].write(text)

if os.environ.get("WHERE") == "imported":
    write("file", "text")
if os.environ.get("WHERE") == "on a number that was open":
    number = os.open(os.environ["LEFT"] + "/file", os.O_CREAT | os.O_WRONLY)
    os.dup2(number, 1)
    held.append(open(1, "w", closefd=False))
    held[-1].write("text")

@tidalctl.init
def load():
    return {"weight": torch.ones(4)}

def handler(event, context):
    where = os.environ.get("WHERE")
    if where == "exit":
        atexit.register(lambda: write("file", "text"))
    if where == "piped":
        read, end = os.pipe()
        held.append(os.fdopen(end, "w"))
        held[-1].write("text")
        write("file", "text")
    if where == "print":
        print("printed", flush=True)
    if where == "raised":
        write("file", "text")
        raise ValueError("no answer")
    return load()["weight"].sum().item()
"""


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chained(tmp_path_factory.mktemp("writing"), WRITES)


@pytest.mark.parametrize("where", ["imported", "on a number that was open", "exit", "piped", "raised"])
def test_what_was_written_and_never_flushed_is_there_after_a_run(writing: Chain, tmp_path: Path, where: str) -> None:
    done = writing.start({}, LEFT=str(tmp_path), WHERE=where)
    assert done.code == (1 if where == "raised" else 0)
    assert "text" in (tmp_path / "file").read_text()


def writes_to(stdout: int, writing: Chain, tmp_path: Path, verb: str) -> "subprocess.CompletedProcess[str]":
    run = ["run", str(writing.bundle), "--event", "{}"]
    line = {"run --json": [*run, "--json"], "inspect": ["inspect", str(writing.trace)], "--help": ["--help"]}.get(verb, run)
    environment = {**os.environ, "WHERE": verb, "LEFT": str(tmp_path)}
    return subprocess.run([*TIDALCTL, *line], stdout=stdout, stderr=subprocess.PIPE, env=environment, text=True, check=False)


@pytest.mark.parametrize("verb", ["run", "run --json", "print", "inspect", "--help"])
def test_where_nobody_reads_the_output_it_ends_as_sigpipe_ends_a_process(writing: Chain, tmp_path: Path, verb: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = writes_to(write, writing, tmp_path, verb)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("verb", ["run", "run --json", "inspect"])
def test_where_the_output_can_not_be_written_that_is_said_and_not_put_down_to_the_function(
    writing: Chain, tmp_path: Path, verb: str
) -> None:
    with open("/dev/full", "wb") as full:
        done = writes_to(full.fileno(), writing, tmp_path, verb)
    said = [text for text in done.stderr.splitlines() if text.startswith(("error:", "hint:"))]
    assert (done.returncode, len(said)) == (2, 2), done.stderr
    assert "No space left on device" in said[0]
    assert "what was printed" in said[1]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
