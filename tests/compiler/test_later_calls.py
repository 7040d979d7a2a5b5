"""Calls of init after the first one in a process: each gives a fresh state, or the same one, or runs init, which finds what it left."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Chain
from taken import HEAD, take
from warm import plainly, served

CLASSES = """
import functools

class Tokenizer:
    def __init__(self): self.seen = []

class Manager:
    model = None
    def __init__(self): self.history = []

model = tokenizer = None
table = {}
untouched = {}
manager = Manager()
"""


def init_of(body: str) -> str:
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    load = f"@tidalctl.init(static=True)\ndef load(event):\n    global model, tokenizer, table\n{lines}\n"
    return CLASSES + load + "def handler(event, context):\n    load(event)\n"


MADE = "if model is None: model, tokenizer = torch.ones(2), Tokenizer()\n"
LATER_CALLS = {
    f"{MADE}return model": "run_init",
    f"{MADE}return model, tokenizer": "run_init",
    f"{MADE}return [tokenizer.seen]": "run_init",
    f"{MADE}return {{'view': model[:1]}}": "run_init",
    f"{MADE}return model, Tokenizer()": "run_init",
    "if Manager.model is None: Manager.model = torch.ones(2)\nreturn {'model': Manager.model}": "run_init",
    "manager.model = torch.ones(2)\nreturn manager": "run_init",
    "table['w'] = torch.ones(2)\nreturn table": "run_init",
    "model = torch.ones(2)\nreturn [model]": "run_init",
    "table['n'] = 5\nreturn {'table': table}": "run_init",
    f"{MADE}return torch.ones(2), 5": "fresh",
    "return {'table': untouched, 'w': torch.ones(2)}": "fresh",
}


@pytest.mark.parametrize("body", LATER_CALLS)
def test_how_later_calls_are_answered_hangs_on_whether_init_keeps_something_of_its_state(body: str, tmp_path: Path) -> None:
    report = take(tmp_path, init_of(body))
    assert (report.cause, report.later_calls) == (None, LATER_CALLS[body])


def test_a_cache_of_functools_gives_the_same_object_each_time(tmp_path: Path) -> None:
    source = init_of("return torch.ones(2)").replace("def load(event):", "@functools.cache\ndef load():")
    assert take(tmp_path, source.replace("load(event)", "load()")).later_calls == "same"


CACHED = (
    HEAD
    + """
import functools

@tidalctl.init
@functools.cache
def load():
    return {"model": torch.ones(2)}

def handler(event, context):
    state = load()
    state["model"].add_(event["n"])
    return [state["model"].tolist(), load() is state]
"""
)
EVENTS = [{"n": 2}, {"n": 3}, {"n": 4}]


def test_several_events_in_one_process_change_what_a_cache_holds_as_plainly(chain: Callable[..., Chain]) -> None:
    """For the same of parts that init keeps in classes and globals see test_side_effects."""
    made = chain(CACHED, {"n": 1})
    assert (made.manifest["strategy"], made.manifest["guard"]["later_calls"]) == ("snapshot", "same"), made.said()
    outputs, fallbacks, restored = served(made, *EVENTS)
    assert (outputs, fallbacks[-1], restored) == (plainly(made, *EVENTS), None, 1)
