"""Functions whose inits give several states, with the events that are traced and others, and what becomes of them."""

from typing import Any

from taken import HEAD

NETS = (
    HEAD
    + """
import functools

SEEDS = {"base": 1, "deep": 2, "third": 3}


def net(seed, count=2):
    torch.manual_seed(seed)
    return torch.nn.Sequential(*[torch.nn.Linear(8, 8) for _ in range(count)])


def run(model):
    with torch.no_grad():
        return model(torch.ones(1, 8)).sum().item()

"""
)


def names(*found: str) -> dict[str, Any]:
    return {"names": [*found]}


BOUND = """
BASE = None

@tidalctl.init(static=True)
def base():
    global BASE
    BASE = net(1, 4)
    return BASE

@tidalctl.init(static=True)
def load(name):
    return [BASE, net(SEEDS[name])]

def handler(event, context):
    if event.get("first", True):
        base()
    body, head = load("deep")
    return [body is BASE, run(body) if body is not None else None, run(head)]
"""
THROUGH_COMMANDS = {
    "a cache that keeps one": (
        """
@tidalctl.init
@functools.lru_cache(maxsize=1)
def load(name):
    return net(SEEDS[name])

def handler(event, context):
    first = [load(name) for name in event["names"]]
    return [first[0] is load(event["names"][0]), *map(run, first)]
""",
        [names("base"), names("deep")],
        [names("base", "deep", "base"), names("deep", "deep")],
        ("snapshot", 1, None),
    ),
    "a dictionary that keeps one": (
        """
MODELS = {}

@tidalctl.init
def load(name):
    if name not in MODELS:
        MODELS.clear()
        MODELS[name] = net(SEEDS[name])
    return MODELS[name]

def handler(event, context):
    return [[run(load(name)), sorted(MODELS)] for name in event["names"]]
""",
        [names("base"), names("deep")],
        [names("deep", "base"), names("third", "deep")],
        ("snapshot", 1, None),
    ),
    "a method that fills its object": (
        """
class Predictor:
    @tidalctl.init
    def setup(self, name):
        self.name, self.model = name, net(SEEDS[name])

def handler(event, context):
    made = []
    for name in event["names"]:
        predictor = Predictor()
        predictor.setup(name)
        made.append([predictor.name, run(predictor.model)])
    return made
""",
        [names("base", "deep")],
        [names("deep"), names("third", "base")],
        ("snapshot", 1, None),
    ),
    "the largest can't be pickled": (
        """
@tidalctl.init
def large():
    model = net(1, 4)
    model.scale = lambda x: 2 * x
    return model

@tidalctl.init
def small():
    return net(2)

def handler(event, context):
    return [run(large()), run(small()), event["names"]]
""",
        [names("base")],
        [names("deep")],
        ("snapshot", 0, "not-picklable"),
    ),
    "the smaller one reads the event": (
        """
@tidalctl.init
def adapter(event):
    return net(SEEDS[event["names"][0]], 1)

@tidalctl.init(static=True)
def base():
    return net(7, 4)

def handler(event, context):
    return [run(adapter(event)), run(base())]
""",
        [names("base"), names("deep")],
        [names("third")],
        ("snapshot", 0, "event-read-besides"),
    ),
    "a dictionary of everything": (
        """
MODELS = {}

@tidalctl.init
def load(name):
    if name not in MODELS:
        MODELS[name] = [len(MODELS), net(SEEDS[name])]
    return MODELS[name]

def handler(event, context):
    return [[load(name)[0], run(load(name)[1])] for name in event["names"]]
""",
        [names("base"), names("deep")],
        [names("deep", "base"), names("base", "third", "deep")],
        ("snapshot", 0, "not-reproducible"),
    ),
    "two inits set the same": (
        """
import os, sys

def settle():
    os.environ["SEVERAL_MODE"] = "fast"
    sys.setrecursionlimit(5000)

@tidalctl.init(static=True)
def base():
    settle()
    return net(1, 4)

@tidalctl.init(static=True)
def head():
    settle()
    return net(2)

def handler(event, context):
    made = [run(base() if name == "base" else head()) for name in event["names"]]
    return [made, os.environ.get("SEVERAL_MODE"), sys.getrecursionlimit()]
""",
        [names("base", "deep")],
        [names("deep"), names("deep", "base")],
        ("snapshot", 1, None),
    ),
    "a list that grows": (
        """
NAMES = []

@tidalctl.init
def load(name):
    NAMES.append(name)
    return net(SEEDS[name])

def handler(event, context):
    made = [run(load(name)) for name in event["names"]], [*NAMES]
    NAMES.clear()
    return made
""",
        [names("base"), names("deep")],
        [names("base", "deep"), names("deep", "base"), names("third", "base")],
        ("snapshot", 1, None),
    ),
    "names that are folded": (
        """
MODELS = {}

@tidalctl.init(static=True)
def load(name):
    key = name.lower()
    if key not in MODELS:
        MODELS[key] = net(SEEDS[key])
    return MODELS[key]

def handler(event, context):
    first = load(event["names"][0])
    first[0].weight.data.zero_()
    return [run(load(name)) for name in event["names"]]
""",
        [names("base"), names("deep")],
        [names("BASE", "base"), names("Deep", "base", "deep")],
        ("snapshot", 1, None),
    ),
    "more arguments than a cache keeps": (
        """
@tidalctl.init
@functools.lru_cache(maxsize=1)
def load(name):
    return net(SEEDS[name])

def handler(event, context):
    load(event["names"][0])[0].weight.data.zero_()
    return [run(load(name)) for name in event["names"]]
""",
        [names("base"), names("deep")],
        [names("base", "third", "base"), names("third", "base", "third")],
        ("snapshot", 1, None),
    ),
    "objects in common": (
        """
class Bag(list):
    def __bool__(self):
        raise TypeError("neither")

@functools.cache
def shared():
    return Bag()

@tidalctl.init(static=True)
def base():
    return [shared(), net(1, 4), torch.zeros(2)]

@tidalctl.init(static=True)
def head():
    return [shared(), net(2)]

def handler(event, context):
    one, two = base(), head()
    return [run(one[1]), run(two[1]), event["names"]]
""",
        [names("base")],
        [names("deep")],
        ("snapshot", 0, "shared-by-states"),
    ),
    "it counts its calls": (
        """
COUNT = 0

@tidalctl.init
def load(name):
    global COUNT
    COUNT += 1
    return net(SEEDS[name] + COUNT)

def handler(event, context):
    return [run(load(name)) for name in event["names"]]
""",
        [names("base"), names("deep")],
        [names("third"), names("base", "deep"), names("third", "deep")],
        ("snapshot", 1, None),
    ),
}
