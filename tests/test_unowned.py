"""Functions without modules: they compute while their weights are on the way, as plainly, and nothing of that stays on the path."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Chain, python
from test_stream_runs import flip, slowly
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from tidalctl.runtime.stream.gate import Gate
from tidalctl.runtime.stream.unowned import Unowned

LAYERS, STEP = 12, 0.1  # seconds that each layer takes to compute
FREE = f"""
import time
from dataclasses import dataclass

import torch
import tidalctl


@dataclass
class State:
    layers: list
    head: torch.Tensor
    spare: torch.Tensor  # no trace sees a use of it


@tidalctl.init(static=True)
def load(event):
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(64, 64, generator=generator) / 8 for _ in range({LAYERS})]
    return State(layers, torch.randn(64, 97, generator=generator), torch.randn(64, 97, generator=generator))


@torch.inference_mode()
def handler(event, context):
    state = load(event)
    x = torch.ones(1, 64)
    for _ in range(event.get("tokens", 2)):
        for layer in state.layers:
            time.sleep(event.get("step", 0.0))
            x = torch.tanh(x @ layer)
        if event.get("overwrite"):
            state.head[3] = 0.5
        if event.get("raise"):
            raise KeyError("as asked")
        head = state.spare if event.get("spare") else state.head
        yield [x.numpy().tolist()[0][:4], (x @ head).argmax().item(), head[0, :2].tolist()]
"""


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A function whose state is a dataclass of tensors, traced and compiled. Nobody may change it."""
    made = Chain(tmp_path_factory.mktemp("free"), [{}])
    made.project.mkdir()
    (made.project / "app.py").write_text(FREE)
    return made.make()


# -- whole runs


START = """
import functools, json, sys, time
from pathlib import Path
import torch
import tidalctl.runtime.restore, tidalctl.runtime.stream.unowned
from tidalctl.runtime import template

bundle, event, seconds = Path(sys.argv[1]), json.loads(sys.argv[2]), float(sys.argv[3])
pace = (bundle / "weights.safetensors").stat().st_size / seconds
template.StreamOptions = functools.partial(template.StreamOptions, pace=pace, group_size=20_000)
begin = time.monotonic()
function = template.load_bundle(bundle)
answer = next(function(event))
print(json.dumps([answer, time.monotonic() - begin, len(function.template.weights.engine.stalls)]))
"""


def test_loading_hides_behind_compute_though_no_module_owns_a_weight(free: Chain) -> None:
    event, computing = {"step": STEP, "tokens": 1}, LAYERS * STEP
    loading = 1.5 * computing
    done = python(START, free.bundle, json.dumps(event), loading, cwd=free.folder).ok()
    answer, seconds, stalls = json.loads(done.out.splitlines()[-1])
    assert [answer] == free.plain(event)
    assert stalls > 1, "it has begun before all was there"
    assert seconds < loading + 0.6 * computing, "the one after the other would be all of both"


@pytest.mark.parametrize(
    "event", [{}, {"spare": True}, {"overwrite": True}, pytest.param({"tokens": 4}, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("seconds", [0.01, 4.0], ids=["weights first", "compute first"])
def test_it_answers_as_plainly(free: Chain, event: dict[str, Any], seconds: float) -> None:
    before = (free.bundle / "weights.safetensors").read_bytes()
    report = slowly(free.bundle, event, seconds).report
    assert report["output"] == free.plain(event)
    assert (free.bundle / "weights.safetensors").read_bytes() == before
    if event.get("spare") and seconds > 1:
        assert report["weight_misses"] > 0


def test_a_weight_that_differs_is_one_error_and_no_number_leaves(free: Chain, tmp_path: Path) -> None:
    import random
    import shutil

    bundle = Path(shutil.copytree(free.bundle, tmp_path / "app.bundle"))
    flip(bundle / "weights.safetensors", random.Random(3))
    done = slowly(bundle, {"step": 0.01}, 1.0).one_error("weights.safetensors")
    assert not done.out.strip()


LOOK = """
import functools, json, sys
import torch
from tidalctl.runtime import template
template.StreamOptions = functools.partial(template.StreamOptions, pace=40_000.0, group_size=20_000)
from tidalctl import load_bundle
from torch.nn.modules import module as hooks

function = load_bundle(sys.argv[1])
stack = torch._C._len_torch_function_stack
seen = {"within": [], "between": [], "answers": []}
old = torch.tanh
def tanh(x):
    seen["within"].append(stack())
    return old(x)
torch.tanh = tanh
one = function({"tokens": 3})
seen["answers"].append([next(one)])
seen["between"].append(stack())
try:
    list(function({"raise": True}))
except KeyError:
    seen["between"].append(stack())
seen["answers"].append(list(function({"spare": True})))
seen["between"].append(stack())
function.template.weights.wait()
seen["done"] = len(seen["within"])
seen["answers"][0] += list(one)
seen["between"].append(stack())
seen["hooks"] = len(hooks._global_forward_pre_hooks)
print(json.dumps(seen))
"""


def test_the_mode_is_there_in_a_call_while_weights_are_missing_and_never_else(free: Chain) -> None:
    seen = json.loads(python(LOOK, free.bundle, cwd=free.folder).ok().out.splitlines()[-1])
    assert seen["answers"] == [free.plain({"tokens": 3}), free.plain({"spare": True})]
    assert seen["between"] == [0] * 4
    assert seen["within"][0] == 1
    assert set(seen["within"][seen["done"] :]) == {0}, "in the pieces after the last weight"
    assert seen["hooks"] == 0


# -- the gate by itself


class Asked:
    """Stands for the engine: what was needed, in order."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.all = 0

    def need(self, indices: Any) -> None:
        self.groups += indices

    def wait(self) -> None:
        self.all += 1


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
    weights, unowned = tensors(), Unowned(asked.need, asked.wait)
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


@pytest.mark.parametrize("read", READS, ids=range(len(READS)))
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_however_it_is_read_and_in_whatever_grad_mode(asked: Asked, read: Callable[[torch.Tensor], Any], mode: Any) -> None:
    weights, unowned = tensors(), Unowned(asked.need, asked.wait)
    with unowned.call(), mode():
        unowned.hold(held(weights))
        read(weights["b"])
        assert 1 in asked.groups
        assert 0 not in asked.groups


def test_outside_of_a_call_and_in_another_thread_it_waits_at_once(asked: Asked) -> None:
    weights, unowned = tensors(), Unowned(asked.need, asked.wait)
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
    unowned = Unowned(asked.need, asked.wait)
    with unowned.call(), Own():
        unowned.hold(held(tensors()))
        assert asked.all == 1
        assert len(_get_current_function_mode_stack()) == 1


def test_a_mode_that_the_function_holds_across_a_piece_is_its_own_all_along(asked: Asked) -> None:
    weights, unowned = tensors(), Unowned(asked.need, asked.wait)

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

    weights, unowned = tensors(), Unowned(fail, asked.wait)
    for _ in range(2):
        with pytest.raises(OSError), unowned.call():
            unowned.hold(held(weights))
            weights["a"] + 1
    with unowned.call():
        assert len(_get_current_function_mode_stack()) == 1, "and the next call waits as well"


def test_when_everything_is_in_no_call_enters_anything(asked: Asked) -> None:
    weights, unowned = tensors(), Unowned(asked.need, asked.wait)
    with unowned.call():
        unowned.hold(held(weights))
        unowned.open()
        assert not _get_current_function_mode_stack()
    with unowned.call():
        assert not _get_current_function_mode_stack()
    assert asked.groups == []


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
    weights, unowned = tensors(), Unowned(asked.need, asked.wait)
    with unowned.call(), torch.inference_mode():
        unowned.hold(held(weights))
        assert compute(weights["a"]) == [1] * 5
        in_a_worker(unowned.open)
        assert compute(weights["a"])[1:] == [0] * 4
        assert sys.getprofile() is None
        with Own():
            assert compute(weights["a"]) == [1] * 5, "and is not missed"


def test_a_profiler_of_the_functions_own_stays(asked: Asked) -> None:
    weights, unowned, seen = tensors(), Unowned(asked.need, asked.wait), []

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
from tidalctl.runtime.stream.gate import Gate
from tidalctl.runtime.stream.unowned import Unowned

model, weight = torch.nn.Linear(4, 4).eval(), torch.ones(4, 4)
asked, graphs = [], []
wait = lambda: asked.append("all")
gate, unowned = Gate(asked.extend, wait), Unowned(asked.extend, wait)
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


@pytest.mark.parametrize("imported", ["before", "later"])
def test_what_is_compiled_meanwhile_sees_neither_hook_nor_mode(tmp_path: Path, imported: str) -> None:
    found = json.loads(python(COMPILED, imported, cwd=tmp_path).ok().out.splitlines()[-1])
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
