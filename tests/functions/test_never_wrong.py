"""Functions whose state depends on more than it seems to: from the bundle each answers untraced events as it does plainly."""

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Chain, tidalctl
from warm import plainly, served

HEAD = "import torch\nimport tidalctl\n"

KEEPS_THE_EVENT = """
@tidalctl.init
def load(event):
    return {"weight": torch.ones(2), "settings": event}

def handler(event, context):
    state = load(event)
    return (state["weight"] * state["settings"]["x"]).tolist()
"""

READS_PAST_PYTHON = """
class Settings:
    def __init__(self, event):
        self.__dict__ = event

@tidalctl.init
def load(event):
    return torch.full((2,), float(Settings(event).x))

def handler(event, context):
    return load(event).tolist()
"""

ORDER_MATTERS = """
@tidalctl.init
def load(event):
    return {"weight": torch.ones(1), "names": list(event["map"])}

def handler(event, context):
    return load(event)["names"]
"""

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "keeps the event": (KEEPS_THE_EVENT, {"x": 2}, {"x": 5}),
    "reads past Python": (READS_PAST_PYTHON, {"x": 2}, {"x": 3}),
    "order matters": (ORDER_MATTERS, {"map": {"a": 1, "b": 2}}, {"map": {"b": 2, "a": 1}}),
}


ALIKE = ("keeps the event", "order matters")  # what keeps the other right keeps these right


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow) if case in ALIKE else case for case in CASES])
def test_an_event_that_was_not_traced_is_answered_as_plainly(case: str, chain: Callable[..., Chain]) -> None:
    source, *events = CASES[case]
    made = chain(HEAD + source, events[0])
    assert served(made, *events)[0] == plainly(made, *events)


UNSTEADY = """
import random
import secrets

@tidalctl.init(static=True)
def load(event):
    return {"weight": torch.ones(1), "key": secrets.token_hex(4), "generator": random.Random()}

def handler(event, context):
    return load(event)["key"]
"""


def test_a_secret_made_by_init_is_never_frozen_into_a_bundle(chain: Callable[..., Chain]) -> None:
    made = chain(HEAD + UNSTEADY, {})
    assert made.manifest["strategy"] == "eager" and not (made.bundle / "skeleton.pickle").exists()
    assert "two runs of" in made.said()


PROJECT = {
    "app.py": HEAD
    + """
import importlib
from pathlib import Path

HERE = Path(__file__).parent

@tidalctl.init(static=True)
def load(event):
    import registry
    registry.TABLE["x"] = 1
    return torch.ones(1)

def handler(event, context):
    load(event)
    import registry
    plugin = importlib.import_module("plugins." + event["plugin"])
    words = HERE / "words" / (event["language"] + ".txt")
    with open(HERE / "requests.log", "a") as log:
        log.write("asked")
    return [plugin.NAME, words.read_text() if words.exists() else None, registry.TABLE]
""",
    "registry.py": "TABLE = {}\n",
    "plugins/__init__.py": "",
    "plugins/one.py": "NAME = 'one'\n",
    "plugins/two.py": "NAME = 'two'\n",
    "words/en.txt": "the",
    "words/de.txt": "die",
}
TRACED = {"plugin": "one", "language": "en"}
OTHER = {"plugin": "two", "language": "de"}


@pytest.mark.slow
def test_modules_and_files_that_another_event_chooses_come_along(chain: Callable[..., Chain]) -> None:
    made = chain(PROJECT, TRACED)
    assert "requests.log beside its own source" in made.said()
    assert "--include 'words/*.txt' ships those of other events, too" in made.said()
    tidalctl("compile", "app.trace", "--force", "--include", "words/*.txt", cwd=made.folder).ok()
    for event in (TRACED, OTHER, OTHER):  # the log that the first run writes does not spoil the bundle for the second
        report = made.run(event)
        assert (report["output"], report["strategy"]) == (made.plain(event), "snapshot")


NESTED = """
@tidalctl.init(static=True)
def load_table(event):
    return {"table": torch.ones(3)}

@tidalctl.init(static=True)
def load(event):
    return {"weight": torch.arange(3.0), **load_table(event)}

def handler(event, context):
    state = load_table(event) if event.get("inner") else load(event)
    return {name: value.tolist() for name, value in state.items()}
"""


@pytest.mark.slow
def test_the_outermost_init_is_the_one_that_is_kept(chain: Callable[..., Chain]) -> None:
    made = chain(HEAD + NESTED, {})
    assert (made.manifest["init"], made.manifest["strategy"]) == ("app:load", "snapshot"), made.said()
    assert sorted(weight["name"] for weight in made.manifest["weights"]) == ["table", "weight"]
    assert made.run({"inner": 1})["output"] == made.plain({"inner": 1})
