"""The CUDA device on a real GPU: the same bytes by every way, streams that wait, memory that comes back, runs as the plain function."""

import gc
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Chain, chained, python
from streams import CUDA, slowly, weight
from test_cuda_device import GPU, arrival, files
from test_cuda_runs import APP, EVENTS

from tidalctl.artifacts.bundle.weight_groups import Group, plan_groups
from tidalctl.artifacts.errors import TidalError
from tidalctl.runtime.weights.cuda import SPARE, _Buffer
from tidalctl.runtime.weights.device_arrival import DeviceArrival

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")

SIZES = [9000, 512, 20_000_000, 3, 40_000_001, 70_000, 4096, 8 * 2**20, 33]
GROUP = 16 * 2**20


def tensors(made: DeviceArrival, groups: tuple[Group, ...]) -> dict[str, torch.Tensor]:
    return {
        one.name: torch.empty(0, dtype=torch.uint8, device=GPU).set_(made.storage(one))  # type: ignore[call-overload]
        for group in groups
        for one in group.weights
    }


@pytest.mark.parametrize("way", ["buffered", "direct"])
def test_every_way_brings_the_files_bytes(tmp_path: Path, way: str) -> None:
    data, groups = files(tmp_path, SIZES, group_size=GROUP)
    made = arrival(tmp_path, groups, direct=way == "direct")
    found = tensors(made, groups)
    made.start()
    for group in groups:
        for one in group.weights:
            made.need([one.name])
            assert found[one.name].data_ptr() % 512 == 0
            assert found[one.name].cpu().numpy().tobytes() == data[one.offset : one.offset + one.nbytes]
    made.engine.wait()
    made.close_gates({})
    with torch.cuda.stream(torch.cuda.Stream()):
        for group in groups:
            for one in group.weights:
                assert found[one.name].cpu().numpy().tobytes() == data[one.offset : one.offset + one.nbytes]


def test_any_stream_that_waited_sees_the_bytes_and_the_host_does_not_wait(tmp_path: Path) -> None:
    data, groups = files(tmp_path, [4 * 2**20] * 6, group_size=4 * 2**20)
    made = arrival(tmp_path, groups)
    found = tensors(made, groups)
    copying, streams = made._device._streams[GPU], (torch.cuda.current_stream(), torch.cuda.Stream())
    for stream in streams:  # its kernel is loaded, and buffers are pinned, which may wait for all that runs
        with torch.cuda.stream(stream):
            torch.ones(4 * 2**20, dtype=torch.uint8, device=GPU).sum(dtype=torch.int64)
    buffers = [_Buffer() for _ in range(2 + SPARE)]
    while made._device._ring.qsize():
        made._device._ring.get()
    for buffer in buffers:
        made._device._ring.put(buffer)
    torch.cuda.synchronize()
    with torch.cuda.stream(copying):
        torch.cuda._sleep(2_000_000_000)  # about a second, before the first copy
    made.start()
    sums = {}
    for stream in streams:
        with torch.cuda.stream(stream):
            made.need(["0", "1"])
            sums[stream] = [found[name].sum(dtype=torch.int64) for name in ("0", "1")]
    assert not copying.query(), "it returned before anything was copied"
    expected = [sum(data[one.offset : one.offset + one.nbytes]) for group in groups[:2] for one in group.weights]
    torch.cuda.synchronize()
    assert all([int(value) for value in values] == expected for values in sums.values())
    made.engine.wait()


def test_memory_comes_back_when_the_last_weight_is_gone(tmp_path: Path) -> None:
    _, groups = files(tmp_path, SIZES, group_size=GROUP)
    gc.collect()  # arrivals of earlier tests
    before = torch.cuda.memory_allocated()
    made = arrival(tmp_path, groups)
    found = tensors(made, groups)
    made.start()
    made.engine.wait()
    made.close_gates({})
    time.sleep(0.2)  # its worker ends
    assert torch.cuda.memory_allocated() > before
    one = found.pop("2")
    found.clear()
    assert torch.cuda.memory_allocated() > before, "one weight keeps the slab"
    assert one.sum() >= 0
    del one
    assert torch.cuda.memory_allocated() == before


def test_no_room_is_one_error_and_the_device_is_usable_afterwards(tmp_path: Path) -> None:
    _, total = torch.cuda.mem_get_info()
    size = 2**30
    count = total // size + 1
    (tmp_path / "w").touch()
    os.truncate(tmp_path / "w", count * size)
    groups = plan_groups([weight(str(n), n * size, size, n, device=GPU) for n in range(count)])
    with pytest.raises(TidalError, match="has no room for"):
        arrival(tmp_path, groups)
    free, _ = torch.cuda.mem_get_info()
    assert free > total / 2, "what was taken for the attempt is the driver's again"
    assert torch.ones(10, device=GPU).sum() == 10


# -- whole runs


@pytest.fixture(scope="module")
def on_gpu(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chained(tmp_path_factory.mktemp("cuda"), APP, EVENTS[0])


@pytest.mark.parametrize("event", EVENTS, ids=json.dumps)
@pytest.mark.parametrize("seconds", [0.01, 4.0], ids=["weights first", "compute first"])
def test_a_run_answers_as_plainly(on_gpu: Chain, event: dict[str, Any], seconds: float) -> None:
    report = slowly(on_gpu.bundle, event, seconds, group_size=200_000, device=CUDA).report
    assert report["strategy"] == "snapshot"
    assert report["output"] == on_gpu.plain(event)


@pytest.mark.parametrize("options", [("--io", "direct"), ("--io", "buffered"), ("--verify", "full"), ("--readahead", "500KB")])
def test_no_option_changes_an_answer(on_gpu: Chain, options: tuple[str, ...]) -> None:
    assert on_gpu.run(EVENTS[0], *options)["output"] == on_gpu.plain(EVENTS[0])


def test_each_call_in_one_process_has_weights_of_its_own(on_gpu: Chain) -> None:
    script = """
import json, sys
from tidalctl import load_bundle
function = load_bundle(sys.argv[1])
answers = []
for step, event in zip(("", "", "", "make_ready"), map(json.loads, sys.argv[2:])):
    getattr(function.template, step, lambda: None)()
    answers.append(list(function(event)))
print(json.dumps(answers))
"""
    events = [EVENTS[2], EVENTS[0], EVENTS[1], EVENTS[3]]
    answers = python(script, on_gpu.bundle, *map(json.dumps, events), cwd=on_gpu.folder).report
    assert answers == [on_gpu.plain(event) for event in events]
