"""A function whose inits give several states: each is restored when it is asked for, in any order, in one process or in many."""

import json
from pathlib import Path

import pytest
from conftest import Chain, chained, python
from named_states import BOUND, NETS, names
from taken import HEAD, take

from tidalctl.artifacts.bundle.manifest import prefix_in, state_prefix

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


def test_names_of_weights_begin_with_their_state() -> None:
    assert [state_prefix(0, "app:load"), state_prefix(2, "pkg.app:Predictor.setup")] == ["", "Predictor.setup#2/"]
    assert [prefix_in("layers.0.weight"), prefix_in("Predictor.setup#2/layers.0.weight")] == ["", "Predictor.setup#2/"]
