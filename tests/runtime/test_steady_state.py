"""When the first token is out, nothing of ours is on the path any more."""

import json
from pathlib import Path

from conftest import Chain, python

LOOK = """
import gc, json, sys, threading, time
import torch
from tidalctl import load_bundle
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

function = load_bundle(sys.argv[1])
stream = function(json.loads(sys.argv[2]))
next(stream)
function.template.weights.wait()
ours = lambda: [thread.name for thread in threading.enumerate() if thread.name.startswith(("reader", "stream"))]
until = time.monotonic() + 5  # each is at the end of what it does
while ours() and time.monotonic() < until:
    time.sleep(0.01)
print(json.dumps({
    "modes": len(_get_current_dispatch_mode_stack()),
    "hooks": len(hooks._global_forward_hooks) + len(hooks._global_forward_pre_hooks),
    "profile": sys.getprofile() is not None or sys.gettrace() is not None,
    "collector": gc.isenabled(),
    "threads": ours(),
    "compiler": [name for name in ("sympy", "torch._dynamo") if name in sys.modules],
}))
"""


def test_after_the_first_token_no_hook_mode_thread_or_paused_collector_is_left(decoder: Chain) -> None:
    found = python(LOOK, decoder.bundle, json.dumps(decoder.events[0]), cwd=decoder.folder).report
    assert found == {"modes": 0, "hooks": 0, "profile": False, "collector": True, "threads": [], "compiler": []}


UNREAD = """
import dataclasses, gc, json, sys
from tidalctl import load_bundle

stream = load_bundle(sys.argv[1])(json.loads(sys.argv[2]))
before = [gc.isenabled(), "exec" in vars(dataclasses)]
del stream
print(json.dumps([before, [gc.isenabled(), "exec" in vars(dataclasses)]]))
"""


def test_a_stream_that_nobody_reads_is_over_when_it_is_dropped(decoder: Chain) -> None:
    done = python(UNREAD, decoder.bundle, json.dumps(decoder.events[0]), cwd=decoder.folder)
    assert done.report == [[False, True], [True, False]]


DEPTHS = """
import resource, sys
from tidalctl.runtime.process.frame_stack import with_frame_stack

def leaf(a=0, b=0, c=0, d=0, e=0, f=0):
    return a

def at(depth):
    if depth:
        return at(depth - 1)
    for _ in range(200):
        leaf()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for depth in range(400):
        at(depth)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
def modules():
    frame = sys._getframe()
    while frame:
        assert frame.f_globals["__name__"]
        frame = frame.f_back

with_frame_stack(modules)  # who looks through all frames finds a module at each
print(faults(), with_frame_stack(lambda: [faults(), faults()][-1]))
"""


def test_with_room_no_depth_of_calls_takes_memory_and_gives_it_back() -> None:
    without, within = map(int, python(DEPTHS, cwd=Path.cwd()).ok().out.split())
    assert without > 200  # at some depth, each of 200 calls
    assert within < 100
