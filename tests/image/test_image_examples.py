"""What the examples and the cases of dynamic inits answer from an image: as the plain function, or they name why they have none."""

import json
from pathlib import Path
from typing import Any

import pytest
from compiled_examples import compiled_examples
from conftest import chained, tidalctl
from dynamic_cases import Workshop, answers_plain, cases, needs_peft, open_workshop, results
from named_states import NETS, THROUGH_COMMANDS
from support.criu import WITH_CRIU, needs_criu

from tidalctl.artifacts.cause import Cause

pytestmark = [needs_criu, pytest.mark.slow, pytest.mark.timeout(1200)]
DYNAMIC = ("lora_nested", "lora_merged", "lora", "by_hand", "dtype", "two_models", "prompts", "lora_named")
SEVERAL = [kind for kind, case in THROUGH_COMMANDS.items() if case[3][0] == "snapshot"][:4]
REFUSALS = (Cause.THREADS_NOT_FORKED, Cause.IMAGE_HOLDS, Cause.IMAGE_COMPUTED, Cause.IMAGE_SECRET_READ, Cause.DEVICE_NOT_FORKED)


def imaged(bundle: Path, env: dict[str, str]) -> bool:
    """Make an image. Returns whether there is one; else a cause was named."""
    done = tidalctl("image", bundle, cwd=bundle.parent, env={**env, **WITH_CRIU})
    if done.code == 0:
        return True
    done.one_error(code=1)
    assert any(f"({cause.code})" in done.err for cause in REFUSALS), done.err
    return False


def answer(bundle: Path, event: Any, env: dict[str, str]) -> dict[str, Any]:
    """Return a start's output, or what the function raised."""
    words = ("run", bundle, "--event", json.dumps(event), "--image", "require", "--json")
    done = tidalctl(*words, cwd=bundle.parent, env={**env, **WITH_CRIU})
    if done.code == 0:
        assert done.report["start"] == "image"
        return {"output": done.report["output"]}
    return {"raised": done.lines("error:")[0].partition(": ")[2]}


def test_examples(tmp_path: Path) -> None:
    made, asked, env = compiled_examples(tmp_path, count=2)
    with_image = {bundle.name.removesuffix(".bundle"): imaged(bundle, env) for bundle in made}
    assert sum(with_image.values()) >= len(made) - 1, with_image
    for one in asked:
        if with_image[one.name]:
            assert answer(tmp_path / f"{one.name}.bundle", one.event, env) == one.plain, one


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return open_workshop(tmp_path_factory.mktemp("dynamic"))


@needs_peft
@pytest.mark.parametrize("name", DYNAMIC)
def test_dynamic_cases(shop: Workshop, name: str) -> None:
    case = cases(shop)[name]
    shop.make(case)
    if not imaged(shop.bundle(case), shop.env):
        return
    events = [*case.traced, *case.unseen, *case.bad]
    plain = results(answers_plain(shop.app(case), events, shop.env, handler=case.handler))
    for event, expected in zip(events, plain, strict=True):
        found = answer(shop.bundle(case), event, shop.env)
        if "output" in expected:
            assert found == {"output": expected["output"]}, event
        else:
            assert "raised" in found and expected["raised"].partition(":")[0] in found["raised"], (event, found)


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_states(tmp_path: Path, kind: str) -> None:
    source, traced, others, _ = THROUGH_COMMANDS[kind]
    made = chained(tmp_path, NETS + source, *traced)
    assert imaged(made.bundle, {})
    for event in (*traced, *others):
        assert answer(made.bundle, event, {}) == {"output": made.plain(event)}
