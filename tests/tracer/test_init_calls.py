"""What trace and compile say of calls of init: whom nobody called, who is called once more, and with what that is no JSON."""

from pathlib import Path

import pytest
from conftest import Chain, chained, tidalctl, write_project

APP = """
import torch


def load(name, made=None):
    torch.manual_seed(len(name))
    return torch.nn.Linear(4, 4)


def other():
    return load("other")


def handler(event, context):
    {calls}
    return net(torch.ones(4)).sum().item()
"""
CALLS = {
    "nobody calls it": (
        ("--init", "app:other"),
        "net = load('a')",
        "app:other is there, and nothing called it for these events; give one for which it is called, or let --init auto",
    ),
    "again, with what is no JSON": (
        ("--init", "app:load"),
        "net = load('a'); net = load('bb', made=object())",
        "app:load, called at app.py:15 for event 0, runs in each start: its arguments are not JSON",
    ),
    "with what is no JSON": (
        ("--init", "app:load"),
        "net = load('a', made=object())",
        "app:load was called at app.py:15 with an argument that is not JSON",
    ),
}


@pytest.mark.parametrize("kind", list(CALLS)[:2])
def test_trace_says_what_it_saw_of_the_call(tmp_path: Path, kind: str) -> None:
    options, calls, said = CALLS[kind]
    write_project(tmp_path, APP.format(calls=calls))
    assert said in tidalctl("trace", "app.py", "--event", "{}", *options, cwd=tmp_path).ok().err


@pytest.mark.slow
def test_compile_says_where_init_was_called_with_what_is_no_json(tmp_path: Path) -> None:
    options, calls, said = CALLS["with what is no JSON"]
    made: Chain = chained(tmp_path, APP.format(calls=calls), {}, options=options)
    assert said in made.said()
    assert made.run({})["output"] == made.plain({})
