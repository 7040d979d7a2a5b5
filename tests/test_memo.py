"""An init that gives again what it gave before does so from the bundle, and one that makes some of it anew runs in every start."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Chain
from taken import HEAD, take
from test_states import call_twice

CLASSES = """
class Tokenizer:
    def __init__(self): self.seen = []

class Manager:
    model = None
    def __init__(self): self.history = []

model = tokenizer = None
table = {}
manager = Manager()
"""


def init_of(body: str) -> str:
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    load = f"@tidalctl.init\ndef load(event):\n    global model, tokenizer, table\n{lines}\n"
    return CLASSES + load + "def handler(event, context):\n    load(event)\n"


MADE = "if model is None: model, tokenizer = torch.ones(2), Tokenizer()\n"
ANSWERS = {
    "return model": ("same", MADE),
    "return model, tokenizer": ("parts", MADE),
    'return {"model": model, "n": 3, "text": "x"}': ("parts", MADE),
    "return [tokenizer.seen, model]": ("parts", MADE),
    "return manager.model": ("same", "if manager.model is None: manager.model = torch.ones(2)"),
    'return {"model": manager.model}': ("parts", "if manager.model is None: manager.model = torch.ones(2)"),
    'return {"inner": {"model": model}}': ("some", MADE),
    "return model, Tokenizer()": ("some", MADE),
    "return {'view': model[:1]}": ("some", MADE),
    "return [model]": ("fresh", "model = torch.ones(2)"),
    "return torch.ones(2), 5": ("fresh", MADE),
    "return table": ("same", "table['w'] = torch.ones(2)"),
}


@pytest.mark.parametrize("giving", ANSWERS)
def test_what_a_further_call_gives_is_asked_of_init_itself(giving: str, tmp_path: Path) -> None:
    kind, body = ANSWERS[giving]
    report = take(tmp_path, init_of(f"{body}\n{giving}"))
    asked = report.memo, report.memo_parts, report.once
    assert asked == (kind == "same", kind == "parts", kind == "some"), report.cause
    assert report.cause == ""


MEMO = (
    HEAD
    + CLASSES
    + """
@tidalctl.init
def load(event):
    global model, tokenizer
    if model is None:
        model, tokenizer = torch.ones(2), Tokenizer()
    return {"model": model, "tokenizer": tokenizer}

def handler(event, context):
    state = load(event)
    state["tokenizer"].seen.append(event["n"])
    state["extra"] = 1
    again = load(event)
    return [list(again["tokenizer"].seen), again is state, again["model"] is model, sorted(again)]
"""
)


def test_what_the_handler_did_to_the_parts_of_a_state_is_there_at_the_next_call(chain: Callable[..., Chain]) -> None:
    made = chain(MEMO, {"n": 1})
    outputs, fallback, restored = call_twice(made.bundle, {"n": 2}, {"n": 3}, cwd=made.folder)
    keys = ["model", "tokenizer"]
    assert (fallback, restored) == (None, 1)
    assert outputs == [[[2], False, True, keys], [[2, 3], False, True, keys]]


ONCE = """
class Config:
    def __init__(self): self.values = []

config = Config()

@tidalctl.init(static=True)
def load(event):
    config.ready = True
    return {"weight": torch.ones(2), "config": config}

def handler(event, context):
    state = load(event)
    state["config"].values.append(event["n"])
    state["weight"].add_(1)
    return [state["weight"].tolist(), list(config.values)]
"""


@pytest.mark.slow
def test_where_some_is_kept_and_some_made_anew_a_further_call_runs_init(chain: Callable[..., Chain]) -> None:
    made = chain(HEAD + ONCE, {"n": 1})
    assert made.manifest["strategy"] == "snapshot"
    outputs, fallback, restored = call_twice(made.bundle, {"n": 2}, {"n": 3}, cwd=made.folder)
    assert outputs == [[[2.0, 2.0], [2]], [[2.0, 2.0], [2, 3]]]
    assert restored == 1 and "keeps some of what it gives in globals" in str(fallback)
