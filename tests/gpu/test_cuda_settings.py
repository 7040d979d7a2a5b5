"""What a device adds to a process's settings: its generators, and its model. Over a stand-in, for where there is none."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sample_artifacts import fingerprint, write_bundle

from tidalctl.artifacts import fingerprint as fp
from tidalctl.artifacts.bundle.manifest import Guard
from tidalctl.artifacts.cause import Cause
from tidalctl.compiler.side_effects.watches import noting_seeds
from tidalctl.function.process_settings import (
    CUDA_RNG,
    FirstGenerators,
    ambient_digests,
    apply_ambient,
    begun,
    changed,
    read_ambient,
    seeds,
)
from tidalctl.runtime.conditions import generators_mismatch


class Generators:
    """Of two devices, there once one is in use. A state is the seed and what was drawn, 8 bytes each, as torch has it."""

    def __init__(self, put: Any) -> None:
        self.in_use = False
        self.seed, self.drawn = 1, 0
        put(torch.cuda, "is_available", lambda: True)
        put(torch.cuda, "init", self.use)
        put(torch.cuda, "is_initialized", lambda: self.in_use)
        put(torch.cuda, "get_rng_state_all", lambda: [self.state] * 2)
        put(torch.cuda, "manual_seed_all", self.begin)
        put(torch.cuda, "_lazy_seed_tracker", type(torch.cuda._lazy_seed_tracker)())

    def use(self) -> None:
        self.in_use = True

    def begin(self, seed: int) -> None:
        self.seed, self.drawn = seed, 0

    @property
    def state(self) -> torch.Tensor:
        return torch.frombuffer(
            bytearray(self.seed.to_bytes(8, "little") + self.drawn.to_bytes(8, "little")), dtype=torch.uint8
        )


@pytest.fixture
def generators(monkeypatch: pytest.MonkeyPatch) -> Generators:
    return Generators(monkeypatch.setattr)


def init(generators: Generators, draws: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings before an init that is the first to use a device, and those after it."""
    before = read_ambient()
    generators.use()
    generators.drawn += draws
    return before, read_ambient()


def test_a_seed_that_was_set_before_init_is_none_of_inits_settings(generators: Generators) -> None:
    generators.begin(5)
    before, after = init(generators)
    assert CUDA_RNG not in before and CUDA_RNG not in changed(begun(before, after), after)


def test_what_init_draws_hangs_on_the_seed_that_it_found(generators: Generators, tmp_path: Path) -> None:
    found = []
    for seed in (5, 5, 6):
        generators.in_use = False
        generators.begin(seed)
        before, after = init(generators, draws=4)
        before = begun(before, after)
        assert CUDA_RNG in changed(before, after)
        found.append(ambient_digests({CUDA_RNG: before[CUDA_RNG]})[CUDA_RNG])
    assert found[0] == found[1] != found[2]
    guard = Guard(static=True, generators={CUDA_RNG: found[0]})
    manifest = write_bundle(tmp_path / "app.bundle", guard=guard)
    for seed, refused in ((5, False), (6, True)):
        generators.in_use = False  # a start finds out by having them
        generators.begin(seed)
        reason = generators_mismatch(manifest, {})
        assert (reason is not None and CUDA_RNG in reason.text) == refused


def test_where_the_trace_had_no_seed_one_that_waits_for_a_device_is_seen(generators: Generators, tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path / "app.bundle", guard=Guard(static=True, drawn=(CUDA_RNG,)))
    noted = seeds([CUDA_RNG])
    assert generators_mismatch(manifest, noted) is None
    torch.cuda._lazy_seed_tracker.queue_seed_all(print, [])
    assert CUDA_RNG in str(generators_mismatch(manifest, noted))
    generators.use()
    noted = seeds([CUDA_RNG])
    generators.drawn += 4
    assert generators_mismatch(manifest, noted) is None, "drawing is not seeding"
    generators.begin(9)
    assert CUDA_RNG in str(generators_mismatch(manifest, noted))


def test_a_seed_that_init_sets_is_one_of_its_settings(generators: Generators) -> None:
    before, after = init(generators)
    assert CUDA_RNG in changed(begun(before, after, {CUDA_RNG}), after)
    with noting_seeds() as seeded:
        torch.random.manual_seed(torch.initial_seed())
    assert CUDA_RNG in seeded


def test_a_later_event_finds_the_devices_generators_as_in_a_process_of_its_own(generators: Generators) -> None:
    first = FirstGenerators()
    first.put_back()
    init(generators, draws=4)
    first.put_back()
    assert (generators.seed, generators.drawn) == (torch.initial_seed(), 0)


def test_generators_of_devices_are_settings_of_init_once_cuda_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_ambient()
    states = [torch.arange(16, dtype=torch.uint8), torch.zeros(16, dtype=torch.uint8)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.__setitem__(device, state))
    left = changed(before, read_ambient())
    assert list(left) == [CUDA_RNG]
    assert not changed(read_ambient(), read_ambient())
    digests = ambient_digests(left)
    states[:] = [state + 1 for state in states]
    assert ambient_digests(changed(before, read_ambient())) != digests
    with torch.device("meta"):  # one that init made the default takes no part in that
        apply_ambient(left)
    assert states[0].device.type == "cpu"
    assert states[0].tolist() == list(range(16)) and states[1].tolist() == [1] * 16, "a device that is not here is left alone"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", lambda: pytest.fail("there is no device"))
    apply_ambient(left)


def test_another_model_of_the_device_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 PCIe")
    assert fp.device_mismatch(fingerprint(device="NVIDIA H100 PCIe")) is None
    assert fp.device_mismatch(fingerprint(device="cpu")) is None
    other = fp.device_mismatch(fingerprint(device="NVIDIA H200"))
    assert other == Cause.DEVICE_DIFFERS.of(here="NVIDIA H100 PCIe", traced="NVIDIA H200")
