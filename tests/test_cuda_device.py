"""The CUDA device's logic over a stand-in for torch.cuda: where weights lie, what waits for what, and what is told when it can't be.

Whether a real device does what the stand-in does is for test_cuda.py to say.
"""

import itertools
import json
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from conftest import Chain, Done, python
from cuda_standin import Computing, StandIn, install, pin
from hypothesis import given
from hypothesis import strategies as st
from test_stream import digest, within
from test_stream_runs import experts  # noqa: F401 - a fixture
from torch import nn

from tidalctl.artifacts.errors import Corrupt, TidalError, Truncated
from tidalctl.artifacts.groups import Group, plan_groups
from tidalctl.artifacts.manifest import BundleWeight, encode_manifest, seal
from tidalctl.artifacts.manifest import decode_manifest as decode
from tidalctl.runtime.mapping import WeightsFile
from tidalctl.runtime.stream import cuda
from tidalctl.runtime.stream.arrival import Arrival, BundleSource
from tidalctl.runtime.stream.cuda import ALIGNMENT, Place, moves_of, place_weights, steps
from tidalctl.runtime.stream.direct import BLOCK, Reads
from tidalctl.runtime.stream.operators import OperatorGate

GPU = "cuda:0"


def weight(name: str, offset: int, nbytes: int, first_use: int | None = 0, sha256: str = "", device: str = GPU) -> BundleWeight:
    return BundleWeight(
        name=name,
        dtype="uint8",
        shape=(nbytes,),
        nbytes=nbytes,
        device=device,
        file="w",
        offset=offset,
        sha256=sha256,
        first_use=first_use,
    )


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return install(StandIn(), monkeypatch.setattr)


def files(folder: Path, sizes: Iterable[int], gap: int = 64, group_size: int = 30_000) -> tuple[bytes, tuple[Group, ...]]:
    """A weights file of random bytes, and its groups."""
    weights, data = [], bytearray(os.urandom(gap))
    for place, size in enumerate(sizes):
        data += os.urandom(size)
        weights.append(weight(str(place), len(data) - size, size, place, digest(bytes(data[-size:]))))
        data += os.urandom(-len(data) % gap)
    (folder / "w").write_bytes(data)
    return bytes(data), plan_groups(weights, group_size)


def arrival(folder: Path, groups: tuple[Group, ...], direct: bool = False, check: bool = True, **options: Any) -> Arrival:
    source = BundleSource(folder, {"w": WeightsFile(folder / "w")}, lambda index: None, direct)
    return Arrival(groups, source, check, workers=2, **options)


def held(storage: torch.UntypedStorage) -> bytes:
    return bytes(storage)


# -- where weights lie

LAYOUTS = st.lists(
    st.tuples(st.integers(1, 5000), st.integers(0, 700), st.sampled_from([GPU, "cuda:1"]), st.booleans()), max_size=25
)


def laid_out(layout: list[tuple[int, int, str, bool]], group_size: int) -> tuple[Group, ...]:
    weights, end = [], 0
    for number, (nbytes, gap, device, used) in enumerate(layout):
        weights.append(weight(str(number), end + gap, nbytes, number if used else None, device=device))
        end += gap + nbytes
    return plan_groups(weights, group_size)


@given(LAYOUTS, st.integers(1, 9000), st.integers(1, 12000))
def test_each_weight_has_an_aligned_place_of_its_own_on_its_device(
    layout: list[tuple[int, int, str, bool]], group_size: int, slab_size: int
) -> None:
    groups = laid_out(layout, group_size)
    places, slabs = place_weights(groups, slab_size)
    taken: dict[int, list[tuple[int, int]]] = {}
    for group in groups:
        assert len({one.device for one in group.weights}) == 1, "groups never mix devices"
        for one in group.weights:
            slab, begin = places[one.name]
            assert begin % ALIGNMENT == 0
            assert begin + one.nbytes <= slabs[slab].nbytes
            assert slabs[slab].device == one.device
            taken.setdefault(slab, []).append((begin, begin + one.nbytes))
    for slab, spans in taken.items():
        spans.sort()
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
        assert slabs[slab].nbytes == spans[-1][1], "nothing is allocated beyond the last"
        assert slabs[slab].nbytes <= slab_size or len(spans) == 1
    assert len(taken) == len(slabs)


@given(LAYOUTS, st.integers(1, 9000))
def test_moves_bring_every_byte_to_its_place_and_touch_no_other_weight(
    layout: list[tuple[int, int, str, bool]], group_size: int
) -> None:
    groups = laid_out(layout, group_size)
    places, slabs = place_weights(groups, 12_000)
    memory = [bytearray(size.nbytes) for size in slabs]
    data = os.urandom(max((group.end for group in groups), default=0))
    for group in groups:
        for begin, end, (slab, at) in moves_of(group, places):
            assert at + end - begin <= len(memory[slab])
            memory[slab][at : at + end - begin] = data[begin:end]
    for group in groups:
        for one in group.weights:
            slab, at = places[one.name]
            assert memory[slab][at : at + one.nbytes] == data[one.offset : one.offset + one.nbytes]


def test_neighbours_of_aligned_sizes_are_one_copy() -> None:
    (group,) = plan_groups([weight(str(n), 64 + 1024 * n, 1024, n) for n in range(5)])
    places, _ = place_weights([group])
    assert moves_of(group, places) == [cuda.Move(64, 64 + 5 * 1024, Place(0, 0))]


@given(st.integers(0, 10**9), st.integers(1, 10**8))
def test_steps_are_a_range_in_parts_that_a_buffer_takes(begin: int, length: int) -> None:
    found = list(steps(begin, begin + length))
    assert found[0][0] == begin
    assert found[-1][1] == begin + length
    assert all(one[1] == two[0] for one, two in itertools.pairwise(found))
    assert all(0 < high - low <= cuda.STAGE for low, high in found)
    assert len(found) == -(-length // cuda.STAGE)


# -- what waits for what


@pytest.mark.parametrize("direct", [False, True])
def test_what_a_stream_has_waited_for_is_there(tmp_path: Path, standin: StandIn, direct: bool) -> None:
    data, groups = files(tmp_path, [9000, 512, 70_000, 3, 2048, 30_001])
    made = arrival(tmp_path, groups, direct)
    storages = {one.name: made.storage(one) for group in groups for one in group.weights}
    made.start()
    for group in groups:
        made.need(one.name for one in group.weights)
        for one in group.weights:
            assert held(storages[one.name]) == data[one.offset : one.offset + one.nbytes]
            assert storages[one.name].nbytes() == one.nbytes
    made.engine.wait()
    assert made.engine.done


def test_the_host_goes_on_while_copies_are_on_their_way_and_the_device_waits(tmp_path: Path, standin: StandIn) -> None:
    _, groups = files(tmp_path, [20_000] * 5, group_size=20_000)
    made = arrival(tmp_path, groups)
    stream = Waiting()
    standin.computing = stream
    standin.link.clear()
    made.start()
    assert within(10, lambda: made.need(["0", "1"])) is None, "it returned though nothing was copied"
    assert stream.unfinished == 2
    assert not standin.copies
    standin.link.set()
    made.engine.wait()
    assert len(standin.copies) == 5


class Waiting(Computing):
    """A stream that computes on a device: the host doesn't wait where it does."""

    unfinished = 0

    def wait_event(self, event: Any) -> None:
        self.waits.append(event)
        self.unfinished += not event.done.is_set()


def test_a_stream_waits_once_for_a_group_and_never_for_one_that_came_before(tmp_path: Path, standin: StandIn) -> None:
    _, groups = files(tmp_path, [20_000] * 6, group_size=20_000)
    made = arrival(tmp_path, groups)
    standin.link.clear()
    made.start()
    one, other = Waiting(1), Waiting(2)
    standin.computing = one
    for _ in range(3):
        made.need(["2"])
    assert len(one.waits) == 1
    turns = made._device._events
    earlier = [str(group.index) for group in groups if turns.get(group.index, (99,))[0] < turns[2][0]]
    made.need(earlier)
    assert len(one.waits) == 1, "the copy stream keeps order"
    standin.computing = other
    made.need(["2"])
    assert len(other.waits) == 1, "another stream has not waited yet"
    standin.link.set()
    made.engine.wait()


def test_a_buffer_is_filled_again_only_after_the_copy_that_read_it(
    tmp_path: Path, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "SPARE", 1)
    data, groups = files(tmp_path, [20_000] * 12, group_size=20_000)
    made = arrival(tmp_path, groups)
    storages = {one.name: made.storage(one) for group in groups for one in group.weights}
    read: list[int] = []
    plain = Reads.read
    monkeypatch.setattr(
        Reads, "read", lambda self, begin, end, memory: (read.append(begin), plain(self, begin, end, memory))[1]
    )
    standin.link.clear()
    made.start()
    time.sleep(0.3)
    assert len(read) == 3, "two workers and one to spare: readers wait for a copy"
    standin.link.set()
    made.engine.wait()
    for group in groups:
        for one in group.weights:
            assert held(storages[one.name]) == data[one.offset : one.offset + one.nbytes]


def test_all_is_done_only_when_the_last_copy_is(tmp_path: Path, standin: StandIn) -> None:
    _, groups = files(tmp_path, [20_000] * 3, group_size=20_000)
    made = arrival(tmp_path, groups)
    standin.link.clear()
    made.start()
    time.sleep(0.2)
    assert all(made.engine.released(place) for place in range(3))
    assert not made.engine.done, "streams still have to wait"
    standin.link.set()
    made.engine.wait()
    assert len(standin.copies) == 3


# -- memory


def test_a_weight_keeps_its_slab_and_nothing_else_does(tmp_path: Path, standin: StandIn) -> None:
    data, groups = files(tmp_path, [9000, 512])
    made = arrival(tmp_path, groups)
    (one, two) = groups[0].weights
    storage = made.storage(one)
    made.start()
    made.engine.wait()
    time.sleep(0.05)
    other = made.storage(two)  # all is in, but the state isn't made yet
    made.close_gates({})
    assert made._device._slabs == []
    junk = [torch.full((9728,), 7, dtype=torch.uint8) for _ in range(50)]
    assert held(storage) == data[one.offset : one.offset + one.nbytes]
    assert held(other) == data[two.offset : two.offset + two.nbytes]
    assert len(junk) == 50
    made.need(["0", "1"])


def test_no_room_is_one_error_with_a_hint_and_leaves_nothing_allocated(tmp_path: Path, standin: StandIn) -> None:
    _, groups = files(tmp_path, [9000, 512])
    standin.room = 5000
    with pytest.raises(TidalError, match=r"cuda:0 has no room for 0\.00 GB of weights") as found:
        arrival(tmp_path, groups)
    assert found.value.hint
    assert "--eager" in found.value.hint


def test_a_device_that_is_not_there_is_told(tmp_path: Path, standin: StandIn) -> None:
    (tmp_path / "w").write_bytes(bytes(100))
    with pytest.raises(TidalError, match="live on cuda:3; torch sees 1"):
        arrival(tmp_path, plan_groups([weight("0", 0, 100, device="cuda:3")]))


# -- what is wrong is told


def test_bytes_that_nobody_checked_before_are_hashed_on_their_way(tmp_path: Path, standin: StandIn) -> None:
    data, groups = files(tmp_path, [20_000] * 6)
    spoiled = bytearray(data)
    spoiled[66_000] ^= 1
    (tmp_path / "w").write_bytes(spoiled)
    made = arrival(tmp_path, groups, direct=True)
    made.start()
    for place, group in enumerate(groups):
        error = within(10, lambda place=place: made.engine.need([place]))  # type: ignore[misc]
        assert isinstance(error, Corrupt) == (group.begin <= 66_000 < group.end)
    assert not made.engine.done


def test_a_file_that_was_cut_is_told(tmp_path: Path, standin: StandIn) -> None:
    _, groups = files(tmp_path, [20_000] * 6)
    os.truncate(tmp_path / "w", 66_000)
    made = arrival(tmp_path, groups)
    made.start()
    assert isinstance(within(10, made.engine.wait), Truncated)


def test_what_the_reading_engine_found_wrong_is_told_where_it_is_needed(tmp_path: Path, standin: StandIn) -> None:
    _, groups = files(tmp_path, [20_000] * 3, group_size=20_000)

    def fetch(index: int) -> None:
        if index == 1:
            raise Corrupt("spoiled", None)

    source = BundleSource(tmp_path, {"w": WeightsFile(tmp_path / "w")}, fetch, direct=False)
    made = Arrival(groups, source, True, workers=2)
    made.start()
    assert within(10, lambda: made.need(["0"])) is None
    assert isinstance(within(10, lambda: made.need(["1"])), Corrupt)


# -- reads


@given(st.lists(st.tuples(st.integers(0, 60_000), st.integers(1, 30_000)), min_size=1, max_size=6), st.booleans())
def test_direct_and_buffered_reads_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, ranges: list[tuple[int, int]], direct: bool
) -> None:
    path = tmp_path_factory.mktemp("reads") / "w"
    data = bytes(n * n % 251 for n in range(61_234))
    path.write_bytes(data)
    reads = Reads(WeightsFile(path), direct)
    memory = cuda.view_of(buffer := pin(30_000 + 2 * BLOCK))
    for begin, length in ranges:
        end = min(begin + length, len(data))
        if begin < end:
            at = reads.read(begin, end, memory)
            assert bytes(memory[at : at + end - begin]) == data[begin:end]
            with pytest.raises(Truncated):
                reads.read(begin, len(data) + 1, cuda.view_of(pin(len(data) + 3 * BLOCK)))
    assert buffer.numel()


def test_where_the_file_system_refuses_direct_reads_they_are_ordinary_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w").write_bytes(bytes(range(200)) * 50)
    plain = os.open

    def refuse(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return plain(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    reads = Reads(WeightsFile(tmp_path / "w"), True)
    assert not reads.direct
    memory = cuda.view_of(buffer := pin(10_000))
    assert reads.read(5, 15, memory) == 0
    assert bytes(memory[:10]) == bytes(range(5, 15))
    assert buffer.numel()


# -- operators


class Asked:
    """What a gate asked for."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.waited = 0

    def need(self, groups: Iterable[int]) -> None:
        self.groups += groups

    def wait(self) -> None:
        self.waited += 1


def gate_of(module: nn.Module) -> tuple[OperatorGate, Asked, dict[str, int]]:
    asked, numbers = Asked(), {name: place for place, (name, _) in enumerate(module.named_parameters())}
    groups = {p.untyped_storage().data_ptr(): [numbers[name]] for name, p in module.named_parameters()}
    return OperatorGate(asked.need, asked.wait, groups), asked, numbers


class Borrows(nn.Module):
    """Reads its child's weight, and never calls the child."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Linear(4, 4)
        self.called = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.child.weight)


def test_operators_wait_for_what_they_read_and_for_nothing_else() -> None:
    model = Borrows().requires_grad_(False)
    gate, asked, numbers = gate_of(model)
    gate.close()
    try:
        with torch.inference_mode():
            model(torch.ones(1, 4))
            assert asked.groups == [numbers["child.weight"]]
            assert model.called.weight.dtype is torch.float32
            assert model.called.weight.shape == (4, 4)
            assert len(asked.groups) == 1, "a dtype is no read"
            model.called.bias[1] = 2.0
            assert numbers["called.bias"] in asked.groups, "and what is written to must be there, too"
            torch.cat([model.called.weight, model.called.weight])
            assert numbers["called.weight"] in asked.groups
    finally:
        gate.open()
        assert gate.leave()


def test_once_open_it_goes_at_the_next_module_even_in_inference_mode() -> None:
    model = Borrows()
    gate, asked, _ = gate_of(model)
    gate.close()
    with torch.inference_mode():
        model(torch.ones(1, 4))
        before = len(asked.groups)
        gate.open()
        model(torch.ones(1, 4))
    assert torch.overrides._get_current_function_mode() is None
    model(torch.ones(1, 4))
    assert len(asked.groups) == before
    assert torch.ones(2).add(1).sum() == 4


def test_modules_that_would_see_it_wait_for_everything_first() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(1, 3, 8)
    with torch.inference_mode():
        plain = attention(x, x, x)[0]
        gate, asked, _ = gate_of(attention)
        gate.close()
        found = attention(x, x, x)[0]
    assert asked.waited == 1
    assert torch.overrides._get_current_function_mode() is None
    assert torch.equal(plain, found)


def test_inside_another_mode_everything_is_waited_for() -> None:
    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    gate, asked, _ = gate_of(Borrows())
    for number, mode in enumerate((Mode(), torch.device("cpu")), 1):
        with mode:
            gate.close()
            assert asked.waited == number
        assert torch.overrides._get_current_function_mode() is None
    torch.set_default_device("cpu")
    try:
        gate.close()
    finally:
        torch.set_default_device(None)
    assert torch.overrides._get_current_function_mode() is gate, "a default device's mode lies below and goes by itself"
    gate.open()
    assert gate.leave()
    assert asked.waited == 2


# -- whole runs

APP = """
import hashlib
import torch
from torch import nn
import tidalctl

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(97, 256)
        self.layers = nn.ModuleList(nn.Linear(256, 256) for _ in range(8))
        self.attention = nn.MultiheadAttention(256, 4, batch_first=True)
        self.unused = nn.Linear(256, 256)
        self.head = nn.Linear(256, 97, bias=False)

    def forward(self, ids, unused):
        x = self.embedding(ids)[None]
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        x = self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.unused(x) if unused else x)[0, -1]

@tidalctl.init(static=True)
def load(event):
    torch.manual_seed(0)
    return {"model": Model().eval().to("cuda"), "scale": torch.tensor([1.5]), "bias": torch.ones(97, device="cuda")}

@torch.inference_mode()
def handler(event, context):
    state = load(event)
    model = state["model"]
    if event.get("overwrite"):
        model.head.weight[event["overwrite"]] = 0.125
    ids = torch.tensor(event["prompt"], device="cuda")
    for _ in range(3):
        logits = model(ids, event.get("unused", False)) * state["scale"].item() + state["bias"]
        if event.get("all"):
            logits = logits + sum(p.sum() for p in model.parameters())
        ids = torch.cat((ids, logits.argmax().reshape(1)))
        yield [ids[-1].item(), hashlib.sha256(logits.cpu().numpy().tobytes()).hexdigest()]
"""
EVENTS: list[dict[str, Any]] = [
    {"prompt": [3, 1, 4]},
    {"prompt": list(range(40)), "unused": True},
    {"prompt": [5], "overwrite": [1, 90]},
    {"prompt": [7, 7], "all": True},
]
# `tidalctl run` where the device is the stand-in, over a link that is held back
RUN = """
import functools, sys
tests, pace, size = sys.argv.pop(1), float(sys.argv.pop(1)), int(sys.argv.pop(1))
from tidalctl.runtime import launch
launch.StreamOptions = functools.partial(launch.StreamOptions, group_size=size)
import torch
sys.path.append(tests)
from cuda_standin import StandIn, install
standin = install(StandIn(pace=pace or None))
report = launch._report
launch._report = lambda *given: {**report(*given), "slabs": standin.allocated}
from tidalctl.__main__ import main
main()
"""


@pytest.fixture(scope="session")
def on_gpu(experts: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The bundle of apps/experts as if it had been made on a GPU, but for one weight. Nobody may change it."""
    return as_on_gpu(experts.bundle, tmp_path_factory.mktemp("gpu") / "app.bundle")


@pytest.fixture(scope="session")
def every_way(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """APP, traced and compiled on the CPU."""
    made = Chain(tmp_path_factory.mktemp("ways"), [EVENTS[0]])
    made.project.mkdir()
    (made.project / "app.py").write_text(APP.replace('"cuda"', '"cpu"'))
    return made.make()


def as_on_gpu(made: Path, bundle: Path) -> Path:
    shutil.copytree(made, bundle)
    manifest = decode((bundle / "manifest.json").read_bytes(), bundle)
    on_cpu = [one for one in manifest.weights if "scale" in one.name or one.dtype == "uint8"]  # generators' states are bytes
    moved = tuple(one if one in on_cpu else msgspec.structs.replace(one, device=GPU) for one in manifest.weights)
    (bundle / "manifest.json").write_bytes(encode_manifest(seal(msgspec.structs.replace(manifest, weights=moved))))
    return bundle


def run(bundle: Path, event: dict[str, Any], *options: str, seconds: float = 0.0) -> Done:
    size = (bundle / "weights.safetensors").stat().st_size
    pace = size / seconds if seconds else 0
    here = Path(__file__).parent
    return python(RUN, here, pace, 20_000, "run", bundle, "--event", json.dumps(event), "--json", *options, cwd=bundle.parent)


@pytest.mark.parametrize("io", ["buffered", "direct", "auto"])
@pytest.mark.parametrize("seconds", [0.0, 3.0], ids=["weights first", "compute first"])
def test_a_run_answers_as_plainly(experts: Chain, on_gpu: Path, io: str, seconds: float) -> None:  # noqa: F811
    event = {"prompt": list(range(40)), "tokens": 3}
    found = run(on_gpu, event, "--io", io, seconds=seconds).report
    assert found["output"] == experts.plain(event)
    assert found["fallback"] is None
    assert found["strategy"] == "snapshot"
    assert found["io"] in ({"direct": ("direct", "read")}.get(io, ("page cache", "populate", "read")))
    assert found["slabs"], "weights went to the device"


@pytest.mark.parametrize("verify", ["stream", "full", "off"])
def test_what_the_handler_writes_while_loading_stays_written(experts: Chain, on_gpu: Path, verify: str) -> None:  # noqa: F811
    event = {"prompt": [3, 1, 4], "overwrite": [1, 5, 9], "tokens": 2}
    assert run(on_gpu, event, "--verify", verify, seconds=3.0).report["output"] == experts.plain(event)


@pytest.mark.parametrize("event", EVENTS, ids=json.dumps)
def test_whatever_reads_a_weight_waits_for_it(every_way: Chain, tmp_path: Path, event: dict[str, Any]) -> None:
    bundle = as_on_gpu(every_way.bundle, tmp_path / "app.bundle")
    assert run(bundle, event, seconds=4.0).report["output"] == every_way.plain(event)


@pytest.mark.parametrize("io", ["buffered", "direct"])
def test_a_flipped_bit_is_one_error_and_no_output(on_gpu: Path, tmp_path: Path, io: str) -> None:
    bundle = Path(shutil.copytree(on_gpu, tmp_path / "spoiled.bundle"))
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    first = min((one for one in manifest["weights"] if one.get("first_use") is not None), key=lambda one: one["first_use"])
    with open(bundle / "weights.safetensors", "r+b") as file:
        file.seek(first["offset"])
        byte = file.read(1)
        file.seek(first["offset"])
        file.write(bytes([byte[0] ^ 1]))
    done = run(bundle, {"prompt": [1, 2]}, "--io", io)
    done.one_error("sha256 differs")


def test_each_call_of_init_has_weights_of_its_own(experts: Chain, on_gpu: Path) -> None:  # noqa: F811
    script = """
import json, sys
from tidalctl import load_bundle
function = load_bundle(sys.argv[2])
import torch
sys.path.append(sys.argv[1])
from cuda_standin import StandIn, install
standin = install(StandIn())
weights, answers = function.template.weights, []
for step, event in zip(("", "pin", "make_ready"), map(json.loads, sys.argv[3:6])):
    getattr(weights, step, lambda: None)()
    answers.append(list(function(event)))
weights.wait()
print(json.dumps([answers, len(standin.allocated), weights.done, len(torch.nn.modules.module._global_forward_pre_hooks)]))
"""
    events = [{"prompt": [8, 16], "overwrite": [2]}, {"prompt": list(range(30))}, {"prompt": [5, 2]}]
    here = Path(__file__).parent
    done = python(script, here, on_gpu, *map(json.dumps, events), cwd=experts.folder).ok()
    answers, slabs, finished, hooks = json.loads(done.out.splitlines()[-1])
    assert answers == [experts.plain(event) for event in events]
    assert slabs == 3
    assert finished
    assert hooks == 0, "nothing of ours is on the path"
