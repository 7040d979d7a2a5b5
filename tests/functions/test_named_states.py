"""Functions with several states through the commands, at home and moved: traced events and others, in orders that nobody traced."""

import shutil
from pathlib import Path

import pytest
from conftest import Chain, chained
from named_states import BOUND, NETS, THROUGH_COMMANDS


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


ORPHAN = """
import time

class Box:
    pass

BOX = None

@tidalctl.init(static=True)
def base():
    global BOX
    BOX = Box()
    BOX.made = time.time()
    return BOX

@tidalctl.init(static=True)
def load(name):
    return [BOX, net(SEEDS[name])]

def handler(event, context):
    base()
    box, head = load("deep")
    return [box is BOX, run(head)]
"""


def test_the_functions_provoke_each_cause_of_several_states() -> None:
    causes = {cause for *_, (_, _, cause) in THROUGH_COMMANDS.values()}
    assert {"event-read-besides", "shared-by-states", "not-picklable", "not-reproducible"} <= causes


@pytest.mark.slow
def test_a_state_that_needs_one_that_is_not_kept_is_not_kept_either(tmp_path: Path) -> None:
    made = chained(tmp_path, NETS + ORPHAN, {})
    assert "needs-another-state" in [fallback["code"] for fallback in made.manifest["fallbacks"]], made.said()
    assert made.run({})["output"] == made.plain({})
