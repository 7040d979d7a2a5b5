"""What trace and compile say of calls of init: whom nobody called, who is called once more, and with what that is no JSON."""

from pathlib import Path

import pytest
from conftest import Chain, chained

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
    "again, with other arguments": (
        ("--init", "app:load"),
        "net = load('a'); net = load('bb')",
        "app:load is called once more at app.py:15 for event 0: the bundle holds the first state, and this call runs",
    ),
    "with what is no JSON": (
        ("--init", "app:load"),
        "net = load('a', made=object())",
        "app:load was called at app.py:15 with an argument that is not JSON",
    ),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calls")


@pytest.mark.parametrize("kind", CALLS)
def test_a_hint_says_what_was_seen_of_the_call(places: Path, kind: str) -> None:
    options, calls, said = CALLS[kind]
    made: Chain = chained(places / kind.replace(" ", "_"), APP.format(calls=calls), {}, options=options)
    assert said in made.said()
    assert made.run({})["output"] == made.plain({})
