"""What a state holds of globals that init leaves alone is theirs again in a start: a change of the one is seen in the other."""

import dataclasses
import io
from collections.abc import Callable

import pytest
from conftest import Chain
from taken import HEAD

from tidalctl.artifacts.state.skeleton import SkeletonPickler, SkeletonUnpickler

INNER = """
SETTINGS = {"generation": {"temperature": 1.0, "stop": [[1], [2]]}}

class Config:
    generation = {"scale": 1.0}

class Holder:
    def __init__(self): self.options = {"bias": 0.0}

HOLDER = Holder()

@tidalctl.init(static=True)
def load(event):
    generation = SETTINGS["generation"]
    return {"w": torch.ones(2), "gen": generation, "cls": Config.generation, "options": HOLDER.options}

def handler(event, context):
    state = load(event)
    if event:
        SETTINGS["generation"]["temperature"] = Config.generation["scale"] = HOLDER.options["bias"] = 2.0
        SETTINGS["generation"]["stop"].append([3])
    made = state["w"] * state["gen"]["temperature"] * state["cls"]["scale"] + state["options"]["bias"]
    return [made.tolist(), state["gen"]["stop"]]
"""


def test_what_lies_inside_a_global_or_a_class_is_shared_with_it_as_plainly(chain: Callable[..., Chain]) -> None:
    made = chain(HEAD + INNER, {})
    assert made.manifest["strategy"] == "snapshot", made.said()
    assert made.run({"change": 1})["output"] == made.plain({"change": 1})


def test_a_librarys_sentinel_is_the_same_one_again() -> None:
    file = io.BytesIO()
    SkeletonPickler(file, {}).dump([dataclasses.MISSING, dataclasses.MISSING])
    file.seek(0)
    found = SkeletonUnpickler(file, lambda name: pytest.fail(name), None).load()
    assert found[0] is dataclasses.MISSING and found[1] is dataclasses.MISSING
