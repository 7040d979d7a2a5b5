"""A global that a handler sets before init: no hindrance where init can't have looked at it, and a cause to run init where it can."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Chain

from tidalctl.compiler.early_globals import EarlyGlobals
from tidalctl.compiler.module_state import ModuleState

HEAD = """
import contextvars, functools, importlib, sys, threading, uuid
import torch
COUNT = 0
LOG = []
LAST = {}
REQUEST = contextvars.ContextVar("request")
"""

UNSEEN = {
    "a_counter": ("return 1", "global COUNT; COUNT += 1; load()"),
    "a_new_global": ("return 1", "global STARTED; STARTED = 1.5; load()"),
    "an_identifier": ("return 1", "global COUNT; COUNT = uuid.uuid4(); load()"),
    "a_log": ("return 1", "LOG.append('asked'); load()"),
    "a_dict_of_plain_values": ("return 1", "LAST.update(a=1, b='c'); load()"),
    "a_context_variable": ("return 1", "token = REQUEST.set('7'); load(); REQUEST.reset(token)"),
    "getattr_of_a_library": ("return getattr(torch, 'bfloat' + '16')", "global COUNT; COUNT += 1; load()"),
}

SEEN = {
    "by_name": ("return COUNT", "global COUNT; COUNT += 1; load()"),
    "in_a_function_that_it_calls": ("return helper()\ndef helper():\n    return COUNT", "global COUNT; COUNT += 1; load()"),
    "in_a_comprehension": ("return [COUNT for _ in range(1)]", "global COUNT; COUNT += 1; load()"),
    "in_a_method": (
        "return Made().get\nclass Made:\n    @property\n    def get(self):\n        return COUNT",
        "global COUNT; COUNT += 1; load()",
    ),
    "in_a_function_that_torch_reads": (
        "return torch.compile(scaled)\ndef scaled(x: torch.Tensor) -> torch.Tensor:\n    return x * COUNT",
        "global COUNT; COUNT += 1; load()",
    ),
    "through_a_library": (
        "return functools.reduce(helper, [1, 2])\ndef helper(a, b):\n    return COUNT",
        "global COUNT; COUNT += 1; load()",
    ),
    "in_a_thread": (
        "t = threading.Thread(target=helper)\n    t.start()\n    t.join()\ndef helper():\n    return COUNT",
        "global COUNT; COUNT += 1; load()",
    ),
    "through_its_module": (
        "return getattr(importlib.import_module(__name__), 'COU' + 'NT')",
        "global COUNT; COUNT += 1; load()",
    ),
    "through_sys_modules": ("return vars(sys.modules[__name__])['COUNT']", "global COUNT; COUNT += 1; load()"),
    "through_globals": ("return globals()['COU' + 'NT']", "global COUNT; COUNT += 1; load()"),
    "through_eval": ("return eval('COU' + 'NT')", "global COUNT; COUNT += 1; load()"),
    "through_the_caller's_frame": ("return sys._getframe(2)", "global COUNT; COUNT += 1; load()"),
    "a_context_variable": ("return REQUEST.get()", "REQUEST.set('7'); load()"),
    "all_context_variables": ("return dict(contextvars.copy_context())", "REQUEST.set('7'); load()"),
    "a_list_that_it_is_given": ("return given", "LOG.append('asked'); load(LOG)"),
    "a_list_that_something_else_holds": ("return Kept.log\nclass Kept:\n    log = LOG", "LOG.append('asked'); load()"),
    "a_list_in_a_default": ("return helper()\ndef helper(log=LOG):\n    return log", "LOG.append('asked'); load()"),
    "the_event_itself": ("return given", "global LAST; LAST = event; load(event)"),
    "an_object": ("return 1", "global COUNT; COUNT = object(); load()"),
    "a_tuple_with_an_object": ("return 1", "global COUNT; COUNT = (1, []); load()"),
    "a_dict_of_lists": ("return 1", "LAST.update(a=[1]); load()"),
    "a_context_variable_that_an_object_holds": (
        "return Kept().variable.get()\nclass Kept:\n    variable = REQUEST",
        "REQUEST.set('7'); load()",
    ),
}


def looked_at(body: str, handler: str, folder: Path, name: str) -> str:
    """What a project's init may have looked at, of what its handler set before."""
    text = f"{HEAD}\ndef load(given=None):\n    return ask(make, given)\ndef make(given):\n    {body}\n"
    text += "def handler(event):\n" + "".join(f"    {line.strip()}\n" for line in handler.split("; "))
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    project: Any = importlib.import_module(name)
    modules = ModuleState(str(folder))
    found = []

    def ask(make: Callable[[Any], Any], *arguments: Any) -> Any:
        early = EarlyGlobals(
            ((module, one) for module, values in modules.kept().items() for one in values),
            lambda file: file == str(folder / f"{name}.py"),
        )
        held = early.held_elsewhere()
        with early:
            made = make(*arguments)
        found.append(held or early.looked_at())
        return made

    project.ask = ask
    modules = ModuleState(str(folder))
    project.handler({"a": 1})
    return found[0]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("early_"):
            del sys.modules[name]


@pytest.mark.parametrize("case", UNSEEN)
def test_init_can_not_have_looked_at(case: str, project: Path) -> None:
    assert looked_at(*UNSEEN[case], project, f"early_unseen_{case}") == ""


@pytest.mark.parametrize("case", SEEN)
def test_init_may_have_looked_at(case: str, project: Path) -> None:
    name = f"early_seen_{case}".replace("'", "")
    assert looked_at(*SEEN[case], project, name).startswith(f"{name}.")


COUNTING = """
import contextvars
import tidalctl
import torch

REQUESTS, LOG, REQUEST = 0, [], contextvars.ContextVar("request")

def scale():
    return SCALE

@tidalctl.init
def load():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 2)

def handler(event, context):
    global REQUESTS, SCALE
    REQUESTS += 1
    LOG.append(event["x"])
    REQUEST.set(str(event["x"]))
    SCALE = event["x"]
    model = load()
    return [REQUESTS, len(LOG), REQUEST.get(), model(torch.full((1, 4), scale())).tolist()]
"""


def test_a_handler_that_counts_its_requests_starts_from_a_snapshot(chain: Callable[..., Chain]) -> None:
    made = chain(COUNTING, {"x": 2.0})
    assert made.manifest["strategy"] == "snapshot", made.said()
    for x in (2.0, 3.0):
        report = made.run({"x": x})
        assert report["fallback"] is None
        assert report["output"] == made.plain({"x": x})


def test_an_init_that_reads_what_the_handler_set_runs(chain: Callable[..., Chain]) -> None:
    made = chain(COUNTING.replace("torch.nn.Linear(4, 2)", "torch.nn.Linear(4, 2).requires_grad_(scale() > 2.5)"), {"x": 2.0})
    assert made.manifest["strategy"] == "eager"
    assert "app.SCALE is set before load is called" in made.said(), made.said()
