"""What holds operators back for weights that no module owns: for which, for how long, and that nothing of it stays."""

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from asked import Asked
from conftest import python
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from tidalctl.runtime.weights.module_gate import Gate
from tidalctl.runtime.weights.unowned_weights import UnownedWeightsGate


@pytest.fixture
def asked() -> Iterator[Asked]:
    yield Asked()
    assert not _get_current_function_mode_stack()
    assert not torch.nn.modules.module._global_forward_pre_hooks


def held(weights: dict[str, torch.Tensor]) -> dict[int, list[int]]:
    return {weight.untyped_storage().data_ptr(): [index] for index, weight in enumerate(weights.values())}


def tensors() -> dict[str, torch.Tensor]:
    return {name: torch.ones(4, 4) for name in "abc"}


def test_only_what_an_operator_reads_is_waited_for(asked: Asked) -> None:
    weights, unowned = tensors(), UnownedWeightsGate(asked.need, asked.wait)
    with unowned.call():
        unowned.hold(held(weights))
        assert asked.groups == []
        torch.add(weights["b"], 1)
        assert asked.groups == [1]
        torch.cat([weights["c"][0], torch.ones(2)])
        assert set(asked.groups) == {1, 2}
        assert weights["a"].shape == (4, 4)
        assert 0 not in asked.groups, "a shape is no content"
    assert asked.all == 0
    weights["a"].sum()
    assert 0 not in asked.groups, "the call has ended"


READS: list[Callable[[torch.Tensor], Any]] = [
    lambda x: x.tolist(),
    lambda x: x.numpy(),
    lambda x: x[0, 0].item(),
    lambda x: torch.nn.functional.linear(torch.ones(1, 4), x),
    lambda x: torch.nn.functional.layer_norm(torch.ones(1, 4), (4,), weight=x[0]),
    lambda x: torch.ops.aten.mm(x, x),
    lambda x: x.__array__(),
    lambda x: x.mul_(2),
    lambda x: torch.einsum("ij,jk->ik", torch.ones(4, 4), x),
    lambda x: x.t() @ x,
]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_however_it_is_read_and_in_whatever_grad_mode(mode: Any) -> None:
    for read in READS:
        asked, weights = Asked(), tensors()
        unowned = UnownedWeightsGate(asked.need, asked.wait)
        with unowned.call(), mode():
            unowned.hold(held(weights))
            read(weights["b"])
            assert 1 in asked.groups
            assert 0 not in asked.groups


def test_outside_of_a_call_and_in_another_thread_it_waits_at_once(asked: Asked) -> None:
    weights, unowned = tensors(), UnownedWeightsGate(asked.need, asked.wait)
    unowned.hold(held(weights))
    assert asked.groups == [0, 1, 2]
    with unowned.call():
        thread = threading.Thread(target=unowned.hold, args=(held(weights),))
        thread.start()
        thread.join()
        assert asked.groups == [0, 1, 2] * 2


class Own(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_inside_a_mode_of_the_functions_own_everything_is_waited_for(asked: Asked) -> None:
    unowned = UnownedWeightsGate(asked.need, asked.wait)
    with unowned.call(), Own():
        unowned.hold(held(tensors()))
        assert asked.all == 1
        assert len(_get_current_function_mode_stack()) == 1


def test_a_mode_that_the_function_holds_across_a_piece_is_its_own_all_along(asked: Asked) -> None:
    weights, unowned = tensors(), UnownedWeightsGate(asked.need, asked.wait)

    def pieces() -> Iterator[int]:
        unowned.hold(held(weights))
        with Own():
            yield len(_get_current_function_mode_stack())
            torch.add(weights["a"], 1)
            yield len(_get_current_function_mode_stack())
        yield len(_get_current_function_mode_stack())

    stream, found = pieces(), []
    for _ in range(3):
        with unowned.call():
            found.append(next(stream))
    assert found[0] == 2
    assert asked.all > 0, "where the function is inside its own, everything is waited for"


def test_what_raises_leaves_nothing(asked: Asked) -> None:
    def fail(indices: Any) -> None:
        raise OSError("no such group")

    weights, unowned = tensors(), UnownedWeightsGate(fail, asked.wait)
    for _ in range(2):
        with pytest.raises(OSError), unowned.call():
            unowned.hold(held(weights))
            weights["a"] + 1
    with unowned.call():
        assert len(_get_current_function_mode_stack()) == 1, "and the next call waits as well"


def compute(weight: torch.Tensor) -> list[int]:
    """A few operators; how many modes were there before each."""
    found = []
    for _ in range(5):
        found.append(len(_get_current_function_mode_stack()))
        weight = torch.nn.functional.layer_norm(weight, (4,)) + weight.T
    return found


def in_a_worker(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_a_long_call_is_rid_of_the_mode_soon_after_the_last_group(asked: Asked) -> None:
    weights, unowned = tensors(), UnownedWeightsGate(asked.need, asked.wait)
    with unowned.call(), torch.inference_mode():
        unowned.hold(held(weights))
        assert compute(weights["a"]) == [1] * 5
        in_a_worker(unowned.open)
        assert compute(weights["a"])[1:] == [0] * 4
        assert sys.getprofile() is None
        with Own():
            assert compute(weights["a"]) == [1] * 5, "and is not missed"


def test_a_profiler_of_the_functions_own_stays(asked: Asked) -> None:
    weights, unowned, seen = tensors(), UnownedWeightsGate(asked.need, asked.wait), []

    def profile(frame: Any, event: str, argument: Any) -> None:
        seen.append(event)

    with unowned.call():
        unowned.hold(held(weights))
        in_a_worker(unowned.open)
        sys.setprofile(profile)
        compute(weights["a"])
        assert sys.getprofile() is profile
        sys.setprofile(None)
        with Own():
            compute(weights["a"])
        assert sys.getprofile() is None, "it gives up below a mode of the function's own"
    assert seen


COMPILED = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
if sys.argv[1] == "before":
    import torch._dynamo
from tidalctl.runtime.weights.module_gate import Gate
from tidalctl.runtime.weights.unowned_weights import UnownedWeightsGate

model, weight = torch.nn.Linear(4, 4).eval(), torch.ones(4, 4)
asked, graphs = [], []
wait = lambda: asked.append("all")
gate, unowned = Gate(asked.extend, wait), UnownedWeightsGate(asked.extend, wait)
gate.on_compile = unowned.open
for index, tensor in enumerate([*model.parameters(), weight]):
    gate.watch(tensor.untyped_storage(), [index])

def keep(graph, example):
    graphs.append(len(graph.graph.nodes))
    return graph

def compute(x):
    return torch.relu(model(x) @ weight).sum()

def handler():
    gate.close({"model": model, "weight": weight}, unowned.hold)
    return torch.compile(compute, backend=keep)(torch.ones(2, 4)).item()

with torch.no_grad():
    with unowned.call():
        under = handler()
    gate.open()
    alone = torch.compile(compute, backend=keep)(torch.ones(2, 4)).item()
    torch._dynamo.reset()
    plain = torch.compile(compute, backend=keep)(torch.ones(2, 4)).item()
import torch._dynamo
print(json.dumps({
    "equal": under == alone == plain, "graphs": graphs, "asked": asked, "finders": [str(f) for f in sys.meta_path if "Watch" in str(f)],
    "callbacks": [str(c) for c in torch._dynamo.callback_handler.start_callbacks if "Watch" in str(c)],
}))
"""


@pytest.mark.parametrize("imported", ["before", pytest.param("later", marks=pytest.mark.slow)])
def test_what_is_compiled_meanwhile_sees_neither_hook_nor_mode(tmp_path: Path, imported: str) -> None:
    found = python(COMPILED, imported, cwd=tmp_path).report
    assert found["equal"]
    assert len(found["graphs"]) == 2, "one under the gate, which is used again, and one after the reset"
    assert found["graphs"][0] == found["graphs"][1]
    assert "all" in found["asked"]
    assert (found["finders"], found["callbacks"]) == ([], [])


def test_a_gate_that_nobody_holds_for_waits_for_what_no_module_owns(asked: Asked) -> None:
    weights = tensors()
    gate = Gate(asked.need)
    for address, groups in held(weights).items():
        gate.watch(next(w for w in weights.values() if w.untyped_storage().data_ptr() == address).untyped_storage(), groups)
    gate.close(weights)
    assert sorted(asked.groups) == [0, 1, 2]
    gate.open()
