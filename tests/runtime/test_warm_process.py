"""A process that answers many events does not grow: states go when the handler drops them."""

import json
from typing import Any

import pytest
from conftest import Chain, python

# Runs events one after the other. Reports the mappings of the weights, which of the states' tensors and storages are alive, and memory.
EVENTS = """
import gc, json, sys, weakref
import tidalctl

bundle, event, count, collects = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "collects"
function = tidalctl.load_bundle(bundle)
template = function.template
answer, tensors, storages = template.answer, [], []

def watched(*arguments):
    import torch
    from tidalctl.artifacts.state.storages import tensors_of
    state = answer(*arguments)
    for _, tensor in tensors_of(state):
        tensors.append(weakref.ref(tensor))
        if tensor.layout == torch.strided and tensor.numel():
            storages.append(torch.multiprocessing.reductions.StorageWeakRef(tensor.untyped_storage()))
    return state

def look():
    mapped = sum(".safetensors" in line for line in open("/proc/self/maps"))
    alive = [sum(reference() is not None for reference in tensors), sum(not reference.expired() for reference in storages)]
    return [mapped, *alive, int(open("/proc/self/statm").read().split()[1]) * 4096]

template.answer = watched
looks, seen = [], [0, 0]
for number in range(count):
    result = function(event)
    if hasattr(result, "__next__"):
        assert list(result)
    del result
    if not number:
        template.weights.wait()
        gc.disable()
    if number == 1 or (number + 1) % 100 == 0:
        if collects:
            gc.collect()
        looks.append(look())
        seen = [seen[0] + len(tensors), seen[1] + len(storages)]
        tensors.clear(), storages.clear()
print(json.dumps({"strategy": template.strategy, "seen": seen, "spans": len(template.timeline.spans), "looks": looks}))
"""


def events(made: Chain, event: dict[str, Any], count: int, mode: str = "") -> dict[str, Any]:
    done = python(EVENTS, made.bundle, json.dumps(event), count, mode, cwd=made.folder).ok()
    found: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    assert found["strategy"] == "snapshot" and min(found["seen"]) > 0
    return found


def test_states_and_their_mappings_go_without_a_collection(decoder: Chain) -> None:
    found = events(decoder, {"prompt": [3, 1, 4], "max_new_tokens": 1}, 200)
    # what is mapped in the end is the file itself, for the checks, and no state's copy of it
    assert [look[:3] for look in found["looks"]] == [[1, 0, 0]] * 3
    assert found["spans"] < 100


def test_a_first_state_that_is_part_of_a_cycle_is_collected_as_any_other(states: Chain) -> None:
    found = events(states, {"n": 1}, 3, "collects")
    assert found["looks"][0][1:3] == [0, 0]
    assert found["looks"][0][0] == 2  # the file itself, and what init left in a global


@pytest.mark.slow
def test_memory_does_not_grow_over_two_thousand_events(decoder: Chain) -> None:
    found = events(decoder, {"prompt": [3, 1, 4], "max_new_tokens": 1}, 2000)
    memory = [look[3] for look in found["looks"]]
    assert memory[-1] - memory[1] < 4 * 2**20
