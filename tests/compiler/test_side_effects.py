"""What init leaves besides its state: kept with it where a name leads to it again, and else a cause to run init in every start."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Chain
from taken import HEAD, take
from warm import plainly, served

from tidalctl.artifacts.cause import Cause

PATCHES = """
import torch
original = torch.nn.functional.gelu
torch.nn.functional.gelu = lambda x: original(x) * 2
"""
LEAVES = """
import collections, sys
numpy = None

def cut(x): return x[:4]

def window(x): return x.unfold(0, 4, 2).mean(0)

class First: size = 4

class Second: size = 8

long_prompt, Kind = cut, First
CACHE, QUEUE, NOTHING = {}, collections.deque(), object()

class Holder:
    model = None

HOLDER = Holder()

def other(self): return 2

class Model:
    net, sizes = None, []
    def size(self): return 1

    class Inner:
        scale = 1.0

@tidalctl.init(static=True)
def load(event):
    global long_prompt, numpy, Kind
    import numpy
    import patches
    long_prompt, Kind = window, Second
    CACHE["table"] = torch.arange(3.0)
    QUEUE.append("ready")
    HOLDER.model = torch.nn.Identity()
    sys.setrecursionlimit(4321)
    torch.backends.mkldnn.enabled = False
    if Model.net is None:
        Model.net = torch.nn.Linear(8, 2)
        torch.nn.init.ones_(Model.net.weight)
        torch.nn.init.zeros_(Model.net.bias)
    Model.sizes.append(5)
    Model.size = Model.__len__ = other
    Model.Inner.scale = 3.0
    return {"x": torch.ones(8), "nothing": NOTHING, "cache": CACHE, "net": Model.net}

def handler(event, context):
    held = Model.sizes
    state = load(event)
    x = state["x"]
    with torch.no_grad():
        out = state["net"](x) * Model.Inner.scale
        Model.net.weight.add_(event.get("more", 0))
    if not event:
        return out.tolist()
    state["extra"] = 1
    again = load(event)
    kept = again is state, again["net"] is state["net"], again["cache"] is state["cache"], sorted(again)
    bound = long_prompt(x).tolist(), float(numpy.log(1.0)), Kind.size
    filled = {key: value.tolist() for key, value in CACHE.items()}, list(QUEUE), type(HOLDER.model).__name__
    shared = state["nothing"] is NOTHING, state["cache"] is CACHE
    settings = torch.nn.functional.gelu(x).tolist(), sys.getrecursionlimit(), torch.backends.mkldnn.enabled
    of_class = Model().size(), len(Model()), list(held), held is Model.sizes
    return [out.tolist(), *kept, *bound, *filled, *shared, *settings, *of_class]
"""


def test_what_init_binds_fills_imports_and_sets_is_there_for_events_that_were_not_traced_and_stays_for_later_ones(
    chain: Callable[..., Chain],
) -> None:
    made = chain({"app.py": HEAD + LEAVES, "patches.py": PATCHES}, {})
    assert (made.manifest["strategy"], made.manifest["guard"]["later_calls"]) == ("snapshot", "run_init"), made.said()
    assert "app.long_prompt" in made.said()
    events = [{"more": 2}, {"more": 3}, {"more": 0}]
    outputs, fallbacks, restored = served(made, *events)
    assert (outputs, fallbacks, restored) == (plainly(made, *events), [None] * 3, 1)


def init_that(body: str, before: str = "") -> str:
    """A function whose init does this, on the way to a state that a snapshot holds."""
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    load = f"{before}\n@tidalctl.init(static=True)\ndef load(event):\n{lines}    return torch.ones(4)\n"
    return load + "def handler(event, context):\n    return load(event).tolist()\n"


CAUSES = {
    "a global is bound to a wrapper of its own name": (
        init_that("global step\nstep = torch.no_grad()(step)", "def step(x): return x\n"),
        Cause.GLOBAL_BOUND_ANEW,
        "init binds app.step anew",
    ),
    "a method is wrapped": (
        init_that("M.make = staticmethod(lambda: 2)", "class M:\n    @staticmethod\n    def make(): return 1\n"),
        Cause.NOT_PICKLABLE,
        "app.M.make: a staticmethod",
    ),
    "a global is deleted": (init_that("global RAW\ndel RAW", "RAW = 1\n"), Cause.GLOBAL_DELETED, "app:load deletes app.RAW"),
    "a class attribute is deleted": (
        init_that("del M.raw", "class M:\n    raw, other = 1, 2\n"),
        Cause.GLOBAL_DELETED,
        "app:load deletes app.M.raw",
    ),
    "what can't be filled is changed in place": (
        init_that("ROWS.add_(1)", "ROWS = torch.ones(2)\n"),
        Cause.GLOBAL_NOT_FILLABLE,
        "app:load changes app.ROWS in place, and no snapshot fills a Tensor",
    ),
    "what can't be pickled is bound": (
        init_that("global work\nwork = lambda: 1", "work = None\n"),
        Cause.NOT_PICKLABLE,
        "app.work: a lambda",
    ),
    "what can't be unpickled is returned": (
        init_that(
            "global kept\nkept = Broken()",
            "kept = None\nclass Broken:\n    def __init__(self): self.size = 1\n    def __reduce__(self): return int, ('x',)\n",
        ),
        Cause.NOT_UNPICKLABLE,
        "unpickled: ValueError: invalid literal",
    ),
    "something deep inside a global": (
        init_that("return TABLE['a']['b'][0]", "TABLE = {'a': {'b': [torch.ones(2)]}}\n"),
        Cause.COPIED_FROM_GLOBAL,
        "the state holds a Tensor from deep inside a global",
    ),
    "memory is shared outside of torch": (
        init_that("global kept\nkept = numpy.ones(2)\nreturn torch.from_numpy(kept)", "import numpy\nkept = None\n"),
        Cause.NOT_PICKLABLE,
        "share memory, but not as views of one tensor",
    ),
    "sys.path is changed": (
        init_that("sys.path.append('/nowhere')", "import sys\n"),
        Cause.SYS_PATH_CHANGED,
        "app:load changes",
    ),
    "the working directory is changed": (
        init_that("os.chdir('/')", "import os\n"),
        Cause.DIRECTORY_CHANGED,
        "app:load changes",
    ),
}


@pytest.mark.parametrize("case", CAUSES)
def test_what_no_snapshot_holds_is_a_cause_that_names_it(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    source, cause, told = CAUSES[case]
    reason = take(tmp_path, source).cause
    assert reason is not None and reason.code == cause.code
    assert told in reason.text


STARTS = {
    "its target": ("threading.Thread(target=work, daemon=True).start()", "work"),
    "its class": ("W(daemon=True).start()", "W"),
    "a pool's work": ("concurrent.futures.ThreadPoolExecutor(1).submit(work)\nbegun.wait()", "work"),
    "a timer's": ("threading.Timer(0.01, work).start()\nbegun.wait()", "work"),
}
WORKERS = """
import concurrent.futures, threading
END = threading.Event()
begun = threading.Event()

def work():
    begun.set()
    END.wait()

class W(threading.Thread):
    def run(self): END.wait()
"""


@pytest.mark.parametrize("case", STARTS)
def test_a_living_thread_of_the_projects_code_is_a_cause(case: str, tmp_path: Path) -> None:
    body, work = STARTS[case]
    try:
        assert take(tmp_path, init_that(body, WORKERS)).cause == Cause.THREAD_STARTED.of(init="app:load", work=work)
    finally:
        next(vars(module) for name, module in reversed(sys.modules.items()) if name.startswith("taken_"))["END"].set()


POOL = "pool = concurrent.futures.ThreadPoolExecutor(1)\nlist(pool.map(abs, range(3)))\nthreading.current_thread().pool = pool"


@pytest.mark.parametrize("body", [POOL, "threading.Thread(target=abs, args=(1,)).start()"])
def test_threads_of_libraries_and_those_that_have_ended_are_no_cause(body: str, tmp_path: Path) -> None:
    assert take(tmp_path, init_that(body, "import concurrent.futures, threading")).cause is None
