"""The bound of what a host holds: which template goes, and that what is held stays within it."""

import shutil
from pathlib import Path

import pytest
from conftest import Chain, chained
from hypothesis import given
from hypothesis import strategies as st
from support.http_host import HttpHost, http_host

from tidalctl.host.memory import IMPORTED, RATE_S, Worth, held_by, size_of

APP = """
import torch

import tidalctl


@tidalctl.init(static=True)
def load():
    torch.manual_seed(0)
    return torch.nn.Linear(6000, 6000)


def handler(event, context):
    return load().weight.shape[0]
"""


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def test_what_saves_least_for_its_size_goes_first_and_what_was_worth_much_ages() -> None:
    clock = Clock()
    worth = Worth(clock)
    held = {"small": (2.0, 10**9), "large": (2.0, 4 * 10**9), "slow": (8.0, 10**9)}
    everything = [(name, *of) for name, of in held.items()]
    for name in held:
        worth.asked(name)
    assert worth.least(everything) == "large", "of equal savings the larger goes"
    assert worth.least(everything[:1] + everything[2:]) == "small", "of equal sizes the one that saves less"
    for _ in range(8):
        worth.asked("large")
    assert worth.least(everything) == "small", "it is asked for nine times as often, and is four times as large"
    clock.at = 10 * RATE_S
    worth.asked("small")
    assert worth.least(everything) == "large", "nobody has asked for it for long"
    worth.gone("small", *held["small"])
    worth.asked("slow")
    assert worth.of("slow", *held["slow"]) > worth.of("small", *held["small"]), "what is asked for now stands above what went"
    assert worth.least([]) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 900)), max_size=30))
def test_rates_never_exceed_what_was_asked(asked: list[tuple[str, float]]) -> None:
    clock = Clock()
    worth = Worth(clock)
    for name, passed in asked:
        clock.at += passed
        worth.asked(name)
    for name in "abc":
        assert 0 <= worth.rate(name) <= sum(one == name for one, _ in asked) / RATE_S + 1e-12


@pytest.mark.slow
def test_templates_that_do_not_fit_together_take_turns(tmp_path: Path) -> None:
    made: Chain = chained(tmp_path, APP, {})
    weights = 6000 * 6000 * 4
    bound = size_of(str(made.bundle)) + IMPORTED + weights // 2
    for name in "abc":  # the same files would be in memory once
        shutil.copytree(made.bundle, tmp_path / f"{name}.bundle")
    bundles = [tmp_path / f"{name}.bundle" for name in "abc"]
    with http_host(tmp_path, *bundles, "--memory", bound, "--spares", 0, env=made.env) as host:
        host.told("ready")
        for name in "abca":
            assert host.invoke({}, name).json == 6000
            host.until(lambda name=name: host.status(name)["memory_bytes"] > weights)
            assert held(host) <= bound + weights, "it is more than the bound by a worker at most"
        assert sum(host.status(name)["evictions"] for name in "abc") >= 2
    with http_host(tmp_path, made.bundle, "--memory", "100MB", env=made.env) as host:
        assert host.told("failed")[0]["cause"] == host.status()["state"] == "template-too-large"
        refused = host.invoke({})
        assert refused.status == 503 and refused.headers["tidalctl-cause"] == "template-too-large"


def held(host: HttpHost) -> int:
    return held_by(host.processes())
