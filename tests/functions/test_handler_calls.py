"""One function from trace to verify: its context, its converted outputs, and how often it is called."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Chain, Done, python, tidalctl, write_project

APP = """
import dataclasses
import os
import tidalctl
import torch

@dataclasses.dataclass
class Answer:
    score: torch.Tensor
    tenant: str
    id: str

@tidalctl.init
def load(context):
    return {"weight": torch.ones(2) / 4}

def handler(event, context):
    with open(os.environ["CALLS"], "a") as file:
        file.write("call\\n")
    tenant = context.client_context.custom["tenant"] if context else "none"
    for state in load(context).values():
        yield Answer(state.sum(), tenant, context.aws_request_id if context else "none")
    yield {event["n"], 1}
"""
CONTEXT = {"client_context": {"custom": {"tenant": "blue-tenant"}}}
FROM_PYTHON = """
import sys, tidalctl
function = tidalctl.load_bundle(sys.argv[1])
first, second = function({"n": 5})
print(type(first.score).__name__, first.tenant, type(second).__name__, function.start.cause and function.start.cause.code)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("calls")
    made = Chain(folder, [{"n": 3}], env={"CALLS": str(folder / "calls")})
    write_project(made.project, APP)
    (folder / "context.json").write_text(json.dumps(CONTEXT))
    return made


def command(made: Chain, *arguments: object) -> tuple[Done, int]:
    """Run tidalctl. Return how it ended, and how often the handler was called."""
    calls = Path(made.env["CALLS"])
    calls.unlink(missing_ok=True)
    done = tidalctl(*arguments, cwd=made.folder, env=made.env)
    return done, len(calls.read_text().splitlines()) if calls.exists() else 0


def told(text: str) -> int:
    found = re.search(r"the handler ran (\d+) times?", text)
    assert found is not None, text
    return int(found[1])


def test_an_output_that_is_not_json_is_told_and_encode_converts_it(made: Chain) -> None:
    trace = ("trace", "project/app.py", "--event", '{"n": 3}', "--context", "context.json")
    done, calls = command(made, *trace)
    done.one_error("piece 0: a dataclass (Answer)", "dataclasses.asdict()", "--encode", code=1)
    assert calls == 1
    done, calls = command(made, *trace, "--encode", "--once", "--json")
    assert calls == told(done.err) == done.report["handler_runs"] == 1
    assert "first-launch tax unknown" in done.err
    assert json.loads((made.folder / "app.events").read_text())["context"] == CONTEXT
    assert b"blue-tenant" not in made.trace.read_bytes()


def test_compile_calls_a_handler_of_once_plainly_and_from_the_bundle(made: Chain) -> None:
    done, calls = command(made, "compile", "app.trace", "--json")
    assert calls == told(done.ok().err) == done.report["handler_runs"] == 2
    assert "1 plainly, 1 from the bundle" in done.err
    assert done.report["strategy"] == "snapshot" and done.report["reproducible"]
    for file in made.bundle.rglob("*"):
        assert not file.is_file() or b"blue-tenant" not in file.read_bytes(), file


def test_each_run_and_the_plain_function_have_the_context_and_convert_alike(made: Chain) -> None:
    given = ("--event", '{"n": 5}', "--context", json.dumps(CONTEXT))
    done, calls = command(made, "verify", made.bundle, *given)
    assert "outputs are equal" in done.ok().out and calls == told(done.out) == 2
    done, calls = command(made, "run", made.bundle, "--json", *given)
    first: dict[str, Any]
    first, second = done.report["output"]
    assert first == {"score": 0.5, "tenant": "blue-tenant", "id": first["id"]} and len(first["id"]) == 36
    assert second == [1, 5] and calls == 1
    assert done.report["strategy"] == "snapshot", "the context among init's arguments is the traced one, its id aside"


def test_from_python_the_caller_gets_the_handlers_own_objects_and_gives_the_context(made: Chain) -> None:
    said = python(FROM_PYTHON, made.bundle, cwd=made.folder, env=made.env).ok().out
    assert said.split() == ["Tensor", "none", "set", "call-differs"]


RANDOM = """
import os, random, tidalctl, torch

@tidalctl.init(static=True)
def load():
    return torch.ones(2)

def handler(event, context):
    with open(os.environ["CALLS"], "a") as file:
        file.write("call\\n")
    return [load().tolist(), random.random()]
"""


def test_under_once_answers_that_differ_from_the_traced_one_are_not_compared(tmp_path: Path) -> None:
    made = Chain(tmp_path, [{}], env={"CALLS": str(tmp_path / "calls")})
    write_project(made.project, RANDOM)
    done, _ = command(made, "trace", "project/app.py", "--event", "{}", "--once")
    done.ok()
    done, calls = command(made, "compile", "app.trace", "--json")
    assert calls == done.report["handler_runs"] == 2 and not done.report["reproducible"]
    assert "under --once it is not run again" in done.err
