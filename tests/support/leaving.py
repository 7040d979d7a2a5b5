"""A function whose events leave traces of all kinds in their process, and what a fresh process answers to each."""

import json
from pathlib import Path
from typing import Any

from conftest import Chain, chained

Event = dict[str, Any]

APP = """
import gc, os, random, signal, sys, threading, time, warnings

import numpy
import torch

import tidalctl

SCALE = @SCALE@
COUNT = []


@tidalctl.init(static=True)
def load():
    torch.manual_seed(SCALE)
    return torch.nn.Linear(32, 32), {"calls": 0}


def leave(kind, model, table):
    if kind == "globals":
        global SCALE
        SCALE = 0
        load.left = True
    elif kind == "environment":
        os.environ["LEFT"] = "left"
        os.environ.pop("HOME", None)
    elif kind == "directory":
        os.chdir("/")
        os.umask(0)
    elif kind == "seeds":
        random.seed(1)
        numpy.random.seed(1)
        torch.manual_seed(1)
    elif kind == "threads":
        torch.set_num_threads(1)
        threading.Thread(target=time.sleep, args=(0.05,)).start()
    elif kind == "weights":
        model.weight.data.zero_()
        table["calls"] = 7
    elif kind == "settings":
        torch.set_default_dtype(torch.float64)
        gc.disable()
        sys.setrecursionlimit(500)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        warnings.simplefilter("error")


def handler(event, context):
    limit, dtype = sys.getrecursionlimit(), str(torch.get_default_dtype())
    model, table = load()
    with torch.no_grad():
        total = model(torch.full((32,), event["n"] / 7)).sum().item()
    table["calls"] += 1
    COUNT.append(event["n"])
    answer = {
        "n": event["n"],
        "scale": SCALE,
        "total": total,
        "calls": table["calls"],
        "count": COUNT,
        "attributes": hasattr(load, "left"),
        "environment": ["LEFT" in os.environ, "HOME" in os.environ],
        "directory": os.getcwd() != "/",
        "drawn": torch.rand(1).item(),
        "threads": torch.get_num_threads(),
        "settings": [limit, dtype, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL],
    }
    leave(event["leave"], model, table)
    if "pieces" in event:
        return stream(event, answer)
    if event.get("wait"):
        time.sleep(event["wait"])
    return answer


def stream(event, answer):
    for number in range(event["pieces"]):
        yield number
        time.sleep(event.get("wait", 0))
    yield answer
"""
KINDS = ("globals", "environment", "directory", "seeds", "threads", "weights", "settings", "nothing")
NUMBERS = range(4)


class Leaving:
    """The function's bundle with a constant of its own, and its answers as plain processes have given them."""

    def __init__(self, folder: Path, scale: int) -> None:
        self.made: Chain = chained(folder, APP.replace("@SCALE@", str(scale)), {"n": 1, "leave": "nothing"})
        # a process a number, each of which leaves nothing: whatever an event leaves is no part of its own answer
        self.answers = {n: self.made.plain({"n": n, "leave": "nothing"}) for n in NUMBERS}

    def right(self, event: Event) -> Any:
        """Return the answer of a fresh process: the pieces of a stream, or a value."""
        answer = self.answers[event["n"]]
        return [*range(event["pieces"]), answer] if "pieces" in event else answer


def text_of(answer: Any) -> str:
    return json.dumps(answer, sort_keys=True)
