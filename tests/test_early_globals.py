"""A global that a handler sets before init: no hindrance where init can't have looked at it, and a cause to run init where it can."""

import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Chain

from tidalctl.compiler.early_globals import EarlyGlobals
from tidalctl.compiler.module_state import ModuleState

HEAD = """
import contextvars, functools, importlib, operator, os, sys, threading, uuid
import torch
COUNT = 0
LOG = []
LAST = {}
REQUEST = contextvars.ContextVar("request")
"""

COUNTS = "global COUNT; COUNT += 1; load()"

# body of init with what follows it, and that of the handler
UNSEEN = {
    "a_counter": ("return 1", COUNTS),
    "a_counter_in_a_function": ("return 1\ndef count():\n    global COUNT\n    COUNT += 1", "count(); load()"),
    "a_new_global": ("return 1", "global STARTED; STARTED = 1.5; load()"),
    "an_identifier": ("return 1", "global COUNT; COUNT = uuid.uuid4(); load()"),
    "a_log": ("return 1", "LOG.append('asked'); load()"),
    "a_dict_of_plain_values": ("return 1", "LAST.update(a=1, b='c'); load()"),
    "a_context_variable": ("return 1", "token = REQUEST.set('7'); load(); REQUEST.reset(token)"),
    "getattr_of_a_library": ("return getattr(torch, 'bfloat' + '16')", COUNTS),
    "eval_of_a_model": ("return torch.nn.Linear(1, 1).eval().modules()", COUNTS),
    "a_sentence_with_the_name": ("return helper()\ndef helper():\n    'Not the COUNT of requests.'", COUNTS),
    "another_module_s": ("return 1", "helpers.asked(); load()"),
}

SEEN = {
    "by_name": ("return COUNT", COUNTS),
    "in_a_function_that_it_calls": ("return helper()\ndef helper():\n    return COUNT", COUNTS),
    "in_a_comprehension": ("return [COUNT for _ in range(1)]", COUNTS),
    "in_a_method": ("return Made().get\nclass Made:\n    @property\n    def get(self):\n        return COUNT", COUNTS),
    "in_a_function_that_torch_reads": ("return torch.compile(scaled)\ndef scaled(x):\n    return x * COUNT", COUNTS),
    "through_a_library": ("return functools.reduce(helper, [1, 2])\ndef helper(a, b):\n    return COUNT", COUNTS),
    "in_a_thread": (
        "t = threading.Thread(target=helper)\n    t.start()\n    t.join()\ndef helper():\n    return COUNT",
        COUNTS,
    ),
    "in_a_cached_function": (
        "return helper()\n@functools.lru_cache\ndef helper():\n    return COUNT",
        "global COUNT; COUNT += 1; helper(); load()",
    ),
    "in_a_function_in_a_table": ("return TASKS['a']()\nTASKS = {'a': lambda: COUNT}", COUNTS),
    "in_a_partial": ("return task()\ndef helper(a):\n    return COUNT\ntask = functools.partial(helper, 1)", COUNTS),
    "in_a_text_that_was_run": ("return get()\nexec('def get(): return COUNT', globals())", COUNTS),
    "in_a_forked_process": ("return os.fork", COUNTS),
    "through_a_cached_function_elsewhere": (
        "return helpers.cached()",
        "helpers.SCALE = 3.0; helpers.cached(); load()",
    ),
    "through_an_object_that_holds_the_module": ("return config['SCA' + 'LE']", "helpers.SCALE = 3.0; load()"),
    "through_a_module_in_a_module": ("return getattr(sys_of.h, 'SCA' + 'LE')", "helpers.SCALE = 3.0; load()"),
    "through_a_package_of_others": ("return others.scale()", "helpers.SCALE = 3.0; load()"),
    "by_a_text": (
        "return operator.attrgetter('helpers.SCALE')(Holder)\nclass Holder:\n    helpers = helpers",
        "helpers.SCALE = 3.0; load()",
    ),
    "through_its_module": ("return getattr(importlib.import_module(__name__), 'COU' + 'NT')", COUNTS),
    "through_an_import_by_another_name": ("return im(__name__)\nfrom importlib import import_module as im", COUNTS),
    "through_sys_modules": ("return vars(sys.modules[__name__])['COUNT']", COUNTS),
    "through_globals": ("return globals()['COU' + 'NT']", COUNTS),
    "through_eval": ("return eval('COU' + 'NT')", COUNTS),
    "through_the_caller's_frame": ("return sys._getframe(2)", COUNTS),
    "what_a_context_variable_holds": ("return REQUEST.get()", "REQUEST.set('7'); load()"),
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

HELPERS = """
import functools
SCALE, ASKED = 1.0, 0
def asked():
    global ASKED
    ASKED += 1
@functools.cache
def cached():
    return SCALE
"""

CONFIG = """
import {name}_helpers as h
class Config:
    def __init__(self, module):
        self.module = module
    def __getitem__(self, key):
        return getattr(self.module, key)
config = Config(h) if {held} else None
"""

OTHERS = """
import {name}_helpers as h
def scale():
    return h.SCALE
"""


def looked_at(case: tuple[str, str], folder: Path, name: str) -> str:
    """What a project's init may have looked at, of what its handler set before."""
    body, handler = case
    held = "config" in body
    made = folder / "project"
    (folder / "others").mkdir()
    made.mkdir()
    head = HEAD + "".join(
        f"import {name}_{other} as {bound}\n"
        for other, bound, asked in (
            ("helpers", "helpers", True),
            ("config", "sys_of", "sys_of" in body),
            ("others", "others", "others" in body),
        )
        if asked
    )
    head += f"from {name}_config import config\n" * held
    text = f"{head}\ndef load(given=None):\n    return ask(make, given)\ndef make(given):\n    {body}\n"
    text += "def handler(event):\n" + "".join(f"    {line.strip()}\n" for line in handler.split("; "))
    for place, content in (
        (made / f"{name}.py", text),
        (made / f"{name}_helpers.py", HELPERS),
        (made / f"{name}_config.py", CONFIG.format(name=name, held=held)),
        (folder / "others" / f"{name}_others.py", OTHERS.format(name=name)),
    ):
        place.write_text(content, encoding="utf-8")
    project: Any = importlib.import_module(name)
    found = []

    def ask(make: Callable[[Any], Any], *arguments: Any) -> Any:
        early = EarlyGlobals(((module, one) for module, values in modules.kept().items() for one in values), modules)
        held = early.held(None)
        with early:
            made = make(*arguments)
        found.append(held or early.looked_at())
        return made

    project.ask = ask
    modules = ModuleState(str(made))
    project.handler({"a": 1})
    return found[0]


def all_looked_at(folder: Path) -> dict[str, str]:
    """By case, in a process of its own: where other threads are at work, nothing is known of what they look at."""
    script = (
        "import json, sys, pathlib\n"
        "sys.dont_write_bytecode = True\n"
        "import test_early_globals as cases\n"
        "found = {}\n"
        "for case, what in (cases.UNSEEN | cases.SEEN).items():\n"
        "    name = 'early_' + case.replace(\"'\", '')\n"
        "    place = pathlib.Path(sys.argv[1]) / name\n"
        "    place.mkdir()\n"
        "    sys.path[:0] = [str(place / 'project'), str(place / 'others')]\n"
        "    found[case] = cases.looked_at(what, place, name)\n"
        "print(json.dumps(found))\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return all_looked_at(tmp_path_factory.mktemp("early"))


@pytest.mark.parametrize("case", UNSEEN)
def test_init_can_not_have_looked_at(case: str, looks: dict[str, str]) -> None:
    assert looks[case] == ""


@pytest.mark.parametrize("case", SEEN)
def test_init_may_have_looked_at(case: str, looks: dict[str, str]) -> None:
    assert looks[case].startswith("early_")


def test_where_another_thread_is_at_work_init_may_have_looked_at_everything(tmp_path: Path) -> None:
    gone = threading.Event()
    thread = threading.Thread(target=gone.wait)
    thread.start()
    try:
        early = EarlyGlobals([("early_none", "COUNT")], ModuleState(str(tmp_path)))
        with early:
            pass
        assert early.looked_at() == "early_none.COUNT"
    finally:
        gone.set()
        thread.join()


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
    assert "app.SCALE is set before app:load is called" in made.said(), made.said()
