"""A function whose inits give several states: each is restored when it is asked for, in any order, in one process or in many."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Chain, chained, python
from taken import HEAD, take

from tidalctl.artifacts.bundle.manifest import prefix_in, state_prefix

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
BY_NAME = (
    NETS
    + """
MODELS = {}
SHARED = 9


@tidalctl.init(static=True)
def load(name):
    if name not in MODELS:
        MODELS[name] = torch.nn.Sequential(net(SHARED), net(SEEDS[name], 1 + SEEDS[name]))
    return MODELS[name]


def handler(event, context):
    return [[run(load(name)), sorted(MODELS)] for name in event["names"]]
"""
)


def names(*found: str) -> dict[str, Any]:
    return {"names": [*found]}


@pytest.fixture(scope="module")
def by_name(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chained(tmp_path_factory.mktemp("by_name"), BY_NAME, names("base"), names("deep"))


def test_each_call_that_was_traced_is_a_state_and_another_runs_init(by_name: Chain) -> None:
    manifest = by_name.manifest
    assert [state["init"] for state in manifest["further"]] == ["app:load"], by_name.said()
    own = [weight for weight in manifest["weights"] if not weight["name"].endswith(".torch.rng")]
    main, further = [sum((prefix_in(weight["name"]) != "") is second for weight in own) for second in (False, True)]
    assert (main, further) == (6, 8), "the part that both have is stored once"
    for event, strategy, cause in (
        (names("base"), "snapshot", None),
        (names("deep", "base"), "snapshot", None),
        (names("third"), "eager", "call-differs"),
    ):
        report = by_name.run(event)
        assert (report["output"], report["strategy"], report["cause"]) == (by_name.plain(event), strategy, cause)


def test_states_of_one_process_are_those_that_the_plain_function_has(by_name: Chain, tmp_path: Path) -> None:
    asked = [names("deep"), names("base"), names("deep", "base"), names("third", "deep"), names("base")]
    ask = "import json, sys\nprint(json.dumps([function(event, None) for event in json.loads(sys.argv[1])]))"
    load = f"from tidalctl.runtime.load_bundle import load_bundle\nfunction = load_bundle({str(by_name.bundle)!r})\n"
    restored = python(load + ask, json.dumps(asked), cwd=tmp_path).ok()
    plain = python(
        "import os, sys\nsys.path.insert(0, os.getcwd())\nfrom app import handler as function\n" + ask,
        json.dumps(asked),
        cwd=by_name.project,
    ).ok()
    assert json.loads(restored.out) == json.loads(plain.out)


IN_PROCESS = {
    "a later state holds an object of an earlier one": (
        """
@tidalctl.init
def base():
    return {"words": WORDS, "w": net(1)}

WORDS = ["a"]
LAST = []

@tidalctl.init
def load(name):
    return [HELD[0]["w"][0], net(2)]

HELD = []

def handler(event, context):
    HELD[:] = [base()]
    load("deep")
""",
        [("base", []), ("load", ["deep"])],
        [None, "global-set-before-init"],
    ),
    "a later state holds an object that a cache gave the earlier one": (
        """
@functools.cache
def words():
    return {"a": 1}

@tidalctl.init
def base():
    return [words(), net(1)]

@tidalctl.init
def load(name):
    return [words(), net(2)]

def handler(event, context):
    base(), load("deep")
""",
        [("base", []), ("load", ["deep"])],
        [None, "shared-by-states"],
    ),
    "an earlier init has set what a later one may look at": (
        """
COUNT = 0

@tidalctl.init
def load(name):
    global COUNT
    COUNT += 1
    return net(COUNT)

def handler(event, context):
    load("base"), load("deep")
""",
        [("load", ["base"]), ("load", ["deep"])],
        [None, "global-set-before-init"],
    ),
    "both fill one dictionary": (
        """
MODELS = {"none": None}

@tidalctl.init
def load(name):
    MODELS[name] = net(SEEDS[name])
    return MODELS[name]

def handler(event, context):
    load("base"), load("deep")
""",
        [("load", ["base"]), ("load", ["deep"])],
        [None, None],
    ),
}


def test_a_state_that_holds_what_an_earlier_one_has_bound_comes_after_that_one(tmp_path: Path) -> None:
    report = take(tmp_path, NETS.removeprefix(HEAD) + BOUND, {}, calls=[("base", []), ("load", ["deep"])])
    assert [report.cause, report.further[1].cause, report.further[1].after] == [None, None, (0,)]


@pytest.mark.parametrize("kind", IN_PROCESS)
def test_a_state_is_kept_unless_it_hangs_on_another_one(kind: str, tmp_path: Path) -> None:
    source, calls, causes = IN_PROCESS[kind]
    report = take(tmp_path, NETS.removeprefix(HEAD) + source, {}, calls=calls)
    found = [report.cause, report.further[1].cause]
    assert [cause.code if cause is not None else None for cause in found] == causes


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", THROUGH_COMMANDS)
def test_what_a_process_is_asked_for_is_as_the_plain_function_makes_it(kind: str, tmp_path: Path) -> None:
    source, traced, others, (strategy, further, cause) = THROUGH_COMMANDS[kind]
    made = chained(tmp_path / "home", NETS + source, *traced)
    lost = [fallback["code"] for fallback in made.manifest.get("fallbacks", ())]
    assert (made.manifest["strategy"], len(made.manifest.get("further", ())), lost) == (
        strategy,
        further,
        [cause] if cause else [],
    ), made.said()
    moved = Chain(tmp_path / "far" / "away", [])
    shutil.copytree(made.bundle, moved.bundle)
    for event in (*traced, *others):
        plain = made.plain(event)
        assert [made.run(event)["output"], moved.run(event)["output"]] == [plain, plain]


@pytest.mark.slow
def test_without_the_earlier_state_init_runs(tmp_path: Path) -> None:
    made = chained(tmp_path, NETS + BOUND, {})
    report, other = made.run({}), made.run({"first": False})
    assert [report["output"], report["strategy"], report["cause"]] == [made.plain({}), "snapshot", None], made.said()
    assert [other["output"], other["cause"]] == [made.plain({"first": False}), "order-differs"]


MODULES = {
    "encoder.py": "import torch\ntorch.manual_seed(1)\nENCODER = torch.nn.Linear(512, 1024)\n",
    "decoder.py": """
import torch
from encoder import ENCODER

class Decoder(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.out = encoder, torch.nn.Linear(512, 600)

torch.manual_seed(2)
DECODER = Decoder(ENCODER)
""",
    "app.py": """
import torch
import encoder
from decoder import DECODER

torch.manual_seed(3)
HEAD = torch.nn.Linear(512, 700)

def handler(event, context):
    with torch.no_grad():
        parts = [part(torch.ones(512) * event["x"]).sum().item() for part in (DECODER.encoder, DECODER.out, HEAD)]
    return [DECODER.encoder is encoder.ENCODER, *parts]
""",
}


@pytest.mark.slow
def test_weights_that_several_modules_make_at_import_are_states_each(tmp_path: Path) -> None:
    made = chained(tmp_path, MODULES, {"x": 1})
    inits = {made.manifest["init"], *(state["init"] for state in made.manifest["further"])}
    assert inits == {"encoder:2-3", "decoder:10-11", "app:6-7"}, made.said()
    for event in ({"x": 1}, {"x": 3}):
        report = made.run(event)
        assert [report["output"], report["strategy"], report["other_inits"]] == [made.plain(event), "snapshot", []]


def test_names_of_weights_begin_with_their_state() -> None:
    assert [state_prefix(0, "app:load"), state_prefix(2, "pkg.app:Predictor.setup")] == ["", "Predictor.setup#2/"]
    assert [prefix_in("layers.0.weight"), prefix_in("Predictor.setup#2/layers.0.weight")] == ["", "Predictor.setup#2/"]
