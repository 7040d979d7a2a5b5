"""Functions whose state depends on the event, as users write them: of 20 events one or two are traced, and all are answered right."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Done
from dynamic_cases import (
    Answer,
    Case,
    Event,
    Workshop,
    adapter_needles,
    answers_bundle,
    answers_plain,
    cases,
    chunks,
    needs_peft,
    open_workshop,
    results,
)

pytestmark = [needs_peft, pytest.mark.timeout(600)]
ALL = ("lora_nested", "lora_named", "lora", "lora_merged", "by_hand", "dtype", "prompts", "two_models")


def named(name: str, *more: int) -> object:
    """A case. All are slow: test_suggest, test_vary and test_replay_reads go the same ways with small functions."""
    return pytest.param(name, *more, marks=pytest.mark.slow)


NAMES = [named(name) for name in ALL]
ADAPTED = [named(name) for name in ("lora_nested", "lora_named", "lora", "lora_merged", "by_hand")]
ERRORS = [named(name, index) for name in ("lora_nested", "by_hand") for index in range(3)]


@dataclass
class Made:
    """A case traced and compiled, and its answers."""

    case: Case
    shop: Workshop
    said: str
    plainly: list[Answer]
    bundled: list[Answer]

    @property
    def bundle(self) -> Path:
        return self.shop.bundle(self.case)

    @property
    def strategy(self) -> str:
        found: str = self.shop.manifest(self.case)["strategy"]
        return found

    def answers(self, events: list[Event]) -> Iterator[tuple[Event, Answer, Answer]]:
        """Each of these events with the plain function's answer and the bundle's."""
        for event, plain, bundled in zip(self.case.asked, self.plainly, self.bundled, strict=True):
            if event in events:
                yield event, plain, bundled


class Makers:
    """Cases made two at a time, in the order in which the tests want them, as the machine has at least two cores."""

    def __init__(self, shop: Workshop, names: list[str]) -> None:
        self.shop, self.cases = shop, cases(shop)
        self.pool = ThreadPoolExecutor(2)
        self.made: dict[str, Future[Made]] = {name: self.pool.submit(self._make, self.cases[name]) for name in names}

    def _make(self, case: Case) -> Made:
        said = self.shop.make(case)
        plainly = answers_plain(self.shop.app(case), case.asked, self.shop.env)
        bundled = answers_bundle(self.shop.bundle(case), case.asked, self.shop.env)
        return Made(case, self.shop, said.err, plainly, bundled)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return open_workshop(tmp_path_factory.mktemp("dynamic"))


@pytest.fixture(scope="module")
def makers(shop: Workshop, request: pytest.FixtureRequest) -> Iterator[Makers]:
    wanted = [item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")]
    makers = Makers(shop, [name for name in dict.fromkeys(wanted) if name in ALL])
    yield makers
    makers.pool.shutdown(cancel_futures=True)


@pytest.fixture
def made(makers: Makers, name: str) -> Made:
    return makers.made[name].result()


@pytest.mark.parametrize("name", NAMES)
def test_20_events_of_which_one_or_two_were_traced_are_answered_as_the_plain_function_answers_them(made: Made) -> None:
    """So are adapters unlike the traced ones (other ranks, target modules, scaling), and events for which the function raises."""
    assert len([*made.case.traced, *made.case.unseen]) == 20
    asked = list(made.answers(made.case.asked))
    assert len(asked) == 20 + len(made.case.odd) + len(made.case.bad)
    for event, plain, bundled in asked:
        assert ("raised" if event in made.case.bad else "output") in plain, (event, plain)
        assert results([bundled]) == results([plain]), event


@pytest.mark.parametrize("name", NAMES)
def test_the_plain_function_depends_on_the_event_so_that_equality_means_something(made: Made) -> None:
    """Events that differ in more than the name of the one device are answered differently, all of them."""
    told = {
        json.dumps({key: value for key, value in event.items() if key != "device"}): str(plain["output"])
        for event, plain, _ in made.answers([*made.case.traced, *made.case.unseen])
    }
    assert len(set(told.values())) == len(told) >= 10


@pytest.mark.parametrize(("name", "index"), ERRORS)
def test_run_ends_with_the_plain_functions_error(made: Made, index: int) -> None:
    """An adapter that is missing, one for a wider base, and one whose rank is not what its config says."""
    event = made.case.bad[index]
    ((_, plain, _),) = made.answers([event])
    done = made.shop.run(made.case, event)
    assert done.code == 1, done.err
    assert plain["raised"] == last_exception(done), done.err


def last_exception(done: Done) -> str:
    """The exception's type and message as the last traceback shows them: what follows its frames, up to tidalctl's own line."""
    assert "Traceback (most recent call last)" in done.err, done.err
    lines = done.err[done.err.rindex("Traceback (most recent call last)") :].splitlines()[1:]
    start = next(number for number, line in enumerate(lines) if line and not line.startswith(" "))
    end = next((number for number, line in enumerate(lines) if line.startswith("error:")), len(lines))
    return "\n".join(lines[start:end]).strip()


@pytest.mark.parametrize("name", NAMES)
def test_the_strategy_is_the_one_that_the_case_is_for_and_events_never_traced_do_not_fall_back(made: Made) -> None:
    assert made.strategy in made.case.strategies, made.said
    if made.case.name == "lora":
        assert "base, tokenizer = load_static()  # in place of line 14" in made.said
    for event, _, bundled in made.answers(made.case.unseen):
        assert bundled["fallback"] is None or made.strategy == "eager", (event, made.said)


@pytest.mark.parametrize("name", [named("by_hand")])
def test_a_script_has_no_need_of_the_base(makers: Makers, made: Made) -> None:
    """Static weights come from the bundle alone, so that none is read twice: the base's files may be gone."""
    assert made.strategy == "script", made.said
    for other in makers.made.values():
        other.exception()  # is done
    gone = made.shop.models.rename(made.shop.models.with_name("gone"))
    try:
        bundled = answers_bundle(made.bundle, made.case.unseen, made.shop.env)
    finally:
        gone.rename(made.shop.models)
    assert results(bundled) == results([plain for _, plain, _ in made.answers(made.case.unseen)])


@pytest.mark.parametrize("name", ADAPTED)
def test_nothing_of_a_traced_adapter_its_name_or_its_files_is_in_the_bundle(made: Made) -> None:
    base = made.shop.models / "tiny"
    files = {path: path.read_bytes() for path in made.bundle.rglob("*") if path.is_file()}
    assert len(files) > 3
    if made.strategy != "eager":  # what is searched for is found where it is
        assert any(first_found({untouched(base): "the base"}, data) for data in files.values())
    needles: dict[bytes, str] = {}
    for event in made.case.traced:
        adapter = Path(event["adapter"])
        config = json.loads((adapter / "adapter_config.json").read_text())
        scale = event.get("scale", config["lora_alpha"] / config["r"])
        for what, runs in adapter_needles(adapter, base, [scale]).items():
            needles |= dict.fromkeys(runs, f"{adapter.name}, {what}")
    for path, data in files.items():
        assert first_found(needles, data) is None, path.relative_to(made.bundle)
        for event in made.case.traced:
            assert event["adapter"].encode() not in data, path
    shipped = {path.name for path in (made.bundle / "code").rglob("*") if path.is_file()}
    assert f"{made.case.name}.py" in shipped
    assert not [name for name in shipped if not name.endswith(".py")]


def first_found(needles: dict[bytes, str], data: bytes) -> str | None:
    """What is said of the first of these runs of 64 bytes that lies somewhere in the data. All at once: a code pack is large."""
    import numpy as np

    low = np.uint64(2**20 - 1)
    heads = np.array([int.from_bytes(run[:8], "little") for run in needles], np.uint64)
    likely = np.zeros(2**20, bool)
    likely[heads & low] = True
    for shift in range(min(8, len(data))):
        words = np.frombuffer(data, "<u8", (len(data) - shift) // 8, shift)
        some = np.flatnonzero(likely[words & low])
        for at in some[np.isin(words[some], heads)].tolist():
            if what := needles.get(data[at * 8 + shift : at * 8 + shift + 64]):
                return what
    return None


def untouched(base: Path) -> bytes:
    """Some bytes of a weight that no adapter is for."""
    from safetensors.torch import load_file

    return chunks(load_file(base / "model.safetensors")["model.layers.1.self_attn.k_proj.weight"].numpy().tobytes())[0]


@pytest.mark.slow  # as test_fallbacks and test_never_wrong hold for smaller functions
@pytest.mark.parametrize("handler", ["handler", "from_entropy"])
def test_an_init_that_draws_without_a_seed_is_never_called_static(shop: Workshop, handler: str) -> None:
    """`torch.randn` alone, whose generator is seeded from the system in each process; and a seed that is drawn from the system."""
    event = {"text": "to be or not to be, that is the question"}
    case = Case("unseeded", [event, {"text": "whether 'tis nobler"}], [], ("replay", "eager"), handler=handler)
    said = shop.make(case)
    assert shop.manifest(case)["strategy"] in case.strategies, said.err
    assert re.search(r"not reproducible|without a seed|random numbers", said.err), said.err
    answers = [shop.run(case, event, "--json").report["output"] for _ in range(4)]
    assert all(re.fullmatch("[01]{16}", answer) for answer in answers)
    assert len(set(answers)) > 1, "each process has planes of its own"


@pytest.mark.slow
def test_the_same_seed_gives_the_same_adapters(shop: Workshop, tmp_path: Path) -> None:
    """PEFT keeps the names of target modules in a set, which is in another order in each process."""
    script, base = shop.project / "make_adapters.py", shop.env["ADAPTERS_BASE"]
    subprocess.run(
        [sys.executable, script, tmp_path / "again", "-n", "2", "--base", base],
        env={**os.environ, "PYTHONHASHSEED": "7"}, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    for name in ("00", "01"):
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            assert (tmp_path / "again" / name / file).read_bytes() == Path(shop.adapter(name), file).read_bytes()
