"""Kernels launched ahead of the handler: on zeros of the traced shapes, leaving no trace, and changing no answer."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from conftest import EXPERTS_EVENT, Chain, python, tidalctl
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tidalctl.artifacts.bundle.manifest import PREWARM
from tidalctl.artifacts.records import KernelSignature
from tidalctl.runtime.kernels.prewarm import LARGEST, Prewarm
from tidalctl.runtime.kernels.scratch_operands import Launch, Scratch, Unfit, unseen
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.tracer.handler.first_uses import operands_of

# `tidalctl run` where no weight comes before the gap is over
LATE = """
import threading
from tidalctl.runtime.kernels.prewarm import Prewarm
from tidalctl.runtime.weights.mapped import MappedDevice
over, bring, in_gap = threading.Event(), MappedDevice.bring, Prewarm.in_gap
def bring_late(self, group):
    over.wait(60)
    bring(self, group)
def end_gap(self, wanted):
    in_gap(self, wanted)
    over.set()
MappedDevice.bring, Prewarm.in_gap = bring_late, end_gap
from tidalctl.__main__ import main
main()
"""
ALWAYS, NEVER = (lambda: True), (lambda: False)


def signature(operator: str, *given: Any, **named: Any) -> KernelSignature:
    """As a trace writes a call of `aten.<operator>`."""
    return KernelSignature(operator=f"aten.{operator}", operands=operands_of(given, named), count=1, time_s=0.0)


def floats(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


def indices(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int64)


MANY = (
    signature("linear.default", floats(1, 4, 8), floats(16, 8)),
    signature("embedding.default", floats(9, 8), indices(1, 4)),
    signature(
        "scaled_dot_product_attention.default", floats(1, 2, 4, 8), floats(1, 2, 4, 8), floats(1, 2, 4, 8), is_causal=True
    ),
    signature("cat.default", [floats(0), floats(3)], -1),
    signature("arange.default", 7, device=torch.device("cpu"), pin_memory=False),
    signature("_to_copy.default", floats(3), dtype=torch.bfloat16),
    signature("div.Tensor_mode", floats(3), floats(3), rounding_mode="floor"),
    signature("gelu.default", floats(3), approximate="tanh"),
    signature("clone.default", floats(3, 4), memory_format=torch.contiguous_format),
)

INDEXING = (
    signature("embedding.default", floats(9, 8), indices(5)),
    signature("index.Tensor", floats(9, 8), [indices(5), None]),
    signature("scatter_add.default", floats(9), 0, indices(5), floats(5)),
    signature("nll_loss_forward.default", floats(4, 3), indices(4), None, 1, -100),
)
DRAWING = (
    signature("bernoulli.p", floats(3), 0.5),
    signature("scaled_dot_product_attention.default", *[floats(1, 2, 4, 8)] * 3, None, 0.5),
)
OF_OTHERS = KernelSignature(operator="c10d.allreduce_.default", operands=(), count=1, time_s=0.0)
NOT_LAUNCHED = (
    *((one, "it draws random numbers") for one in DRAWING),
    (signature("embedding.default", floats(0, 8), indices(5)), "an index into nothing"),
    (signature("_local_scalar_dense.default", floats()), "depends on the data"),
    (signature("nonzero.default", floats(3)), "depends on the data"),
    (signature("index.Tensor", floats(3), [torch.zeros(3, dtype=torch.bool)]), "depends on the data"),
    (signature("view.default", floats(3), [3, 1]), "no kernel"),
    (signature("empty.memory_format", [3], device=torch.device("cpu")), "no kernel"),
    (signature("_assert_async.default", floats()), "for an effect"),
    (signature("add.Tensor", floats(3), object()), "an operand"),
    (signature("add.Tensor", floats(3), torch.zeros(3).to_sparse()), "an operand"),
    (signature("no_such_operator.default"), "no such operator"),
    (signature("add.Tensor", floats(3), 1, 2, 3), "more operands"),
    (OF_OTHERS, "not an operator of torch's own"),
)


@pytest.fixture
def prewarm(tmp_path: Path) -> Iterator[Any]:
    def make(*kernels: KernelSignature, mode: str = "auto") -> Prewarm:
        (tmp_path / PREWARM).write_bytes(json.dumps({"schema": 1, "kernels": msgspec.to_builtins(kernels)}).encode())
        return Prewarm(tmp_path, mode, Timeline(0, 0))

    return make


def refused(one: KernelSignature) -> str:
    with pytest.raises(Unfit) as found:
        Launch(one)
    return str(found.value)


def torch_settings() -> list[Any]:
    return [
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_autocast_cache_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        torch.backends.mkldnn.is_available(),
        torch._C._len_torch_dispatch_stack(),
        torch._C._len_torch_function_stack(),
    ]


# -- what is launched, and on what


@pytest.mark.parametrize("one", [*MANY, *INDEXING], ids=lambda one: one.operator)
def test_a_traced_launch_is_launched_again_from_its_text_and_its_indices_are_valid(one: KernelSignature) -> None:
    with unseen("cpu"):
        Launch(one).run(Scratch("cpu", 2**16))


dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
layouts = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=4)


@given(dtypes, layouts)
@settings(max_examples=50)
def test_an_operand_is_as_it_was_traced_and_holds_zeros(dtype: torch.dtype, layout: list[tuple[int, int]]) -> None:
    traced = torch.empty_strided([size for size, _ in layout], [stride for _, stride in layout], dtype=dtype)
    (operand,) = Launch(signature("neg.default" if dtype != torch.bool else "logical_not.default", traced)).tensors
    made = Scratch("cpu", 2**16).fill(operand)
    assert (made.dtype, made.shape, made.stride(), made.device) == (dtype, traced.shape, traced.stride(), traced.device)
    assert operand.nbytes == traced.untyped_storage().nbytes()
    assert not made.any()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.just(torch.float16) | st.just(torch.strided),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(values, max_size=3), st.one_of(st.none(), st.just(torch.device("cpu")), st.just(torch.preserve_format)))
def test_a_plain_operand_is_read_as_it_was_written(given_values: list[Any], named: Any) -> None:
    from tidalctl.runtime.kernels.scratch_operands import _parsed

    assert [_parsed(text) for text in operands_of(tuple(given_values), {})] == given_values
    assert _parsed(operands_of((named,), {})[0]) == named


def test_a_large_operand_takes_no_memory() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    launch = Launch(signature("linear.default", floats(1, 2048), torch.empty(30_000, 2048, device="meta")))
    launch.tensors[1].device = "cpu"
    scratch = Scratch("cpu", 256 * 2**20)
    before = resident()
    with unseen("cpu"):
        launch.run(scratch)
    assert launch.nbytes == 30_000 * 2048 * 4
    assert resident() - before < launch.nbytes / 4


# -- what is not


def test_nothing_that_writes_to_its_input_is_launched() -> None:
    """Asked of every operator that torch has."""
    writing = [schema for schema in torch._C._jit_get_all_schemas() if schema.is_mutable and schema.name.startswith("aten::")]
    assert len(writing) > 500
    for schema in writing:
        name = f"{schema.name.replace('::', '.')}.{schema.overload_name or 'default'}"
        refused(KernelSignature(operator=name, operands=(), count=1, time_s=0.0))


@pytest.mark.parametrize(("one", "cause"), NOT_LAUNCHED, ids=lambda one: getattr(one, "operator", ""))
def test_what_draws_has_effects_or_no_kernel_is_not_launched(one: KernelSignature, cause: str) -> None:
    assert cause in refused(one)


# -- the way through the list


def test_prewarm_leaves_generators_and_grad_mode_alone(prewarm: Any) -> None:
    before = torch_settings()
    made = prewarm(*MANY, *DRAWING)
    made.in_gap(ALWAYS)
    assert torch_settings() == before
    report = made.report()
    assert (report.launched, report.left_out, report.failed) == (len(MANY), len(DRAWING), 0), report.errors
    assert report.coverage == len(MANY) / (len(MANY) + len(DRAWING))
    with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", dtype=torch.float16), torch.device("meta"):
        before = torch_settings()
        prewarm(*MANY, *DRAWING).in_gap(ALWAYS)
        assert torch_settings() == before


def test_a_mode_of_the_users_sees_nothing_of_it(prewarm: Any) -> None:
    seen = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    made = prewarm(*MANY)
    with Mode():
        made.in_gap(ALWAYS)
        assert not seen
        torch.ones(3)
    assert seen
    assert made.report().launched == len(MANY)


def test_prewarm_stops_when_the_first_weight_is_there(prewarm: Any) -> None:
    looks = iter([True] * 4)
    made = prewarm(*MANY)
    made.in_gap(lambda: next(looks, False))
    assert made.report().launched == 3, "the first look is before the list is opened"
    made.in_gap(ALWAYS)
    assert made.report().launched == 3, "the gap comes once"


def test_off_launches_nothing_and_list_everything(prewarm: Any) -> None:
    made = prewarm(*MANY, mode="off")
    made.in_gap(ALWAYS)
    assert made.report().launched == 0
    made = prewarm(*MANY, mode="list")
    made.in_gap(NEVER)
    assert made.report().coverage == 1


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"kernels": [{"operator": 3}]}', None])
def test_a_list_that_cannot_be_read_launches_nothing(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / PREWARM).write_bytes(text)
    made = Prewarm(tmp_path, "list", Timeline(0, 0))
    made.beside(ALWAYS)
    made.in_gap(ALWAYS)
    report = made.report()
    assert report.errors[0].startswith(PREWARM)
    assert report.coverage is None


def test_a_large_signature_is_left_out(prewarm: Any) -> None:
    largest = LARGEST["cpu"]
    sizes = (largest, largest + 1)
    made = prewarm(*(signature("neg.default", torch.empty(size, dtype=torch.int8, device="meta")) for size in sizes))
    text = (made._file.read_text()).replace("@meta", "@cpu")
    made._file.write_text(text)
    made.in_gap(ALWAYS)
    report = made.report()
    assert (report.launched, report.left_out, report.failed) == (1, 1, 0), report.errors


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without CUDA")
def test_kernels_of_a_device_that_is_not_there_are_counted_and_nothing_raises(prewarm: Any) -> None:
    made = prewarm(
        KernelSignature(operator="aten.neg.default", operands=("float32[3]/(1,)@cuda:0",), count=1, time_s=0.0), mode="list"
    )
    made.beside(ALWAYS)
    made.in_gap(ALWAYS)
    report = made.report()
    assert (report.launched, report.failed) == (0, 1)
    assert report.errors[0].startswith("cuda: ")


# -- whole runs


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_output_is_the_plain_functions_with_prewarm(experts: Chain, mode: str, tmp_path: Path) -> None:
    event = {"prompt": list(range(40)), "overwrite": [1, 5], "tokens": 2}
    given_event = ("--event", json.dumps(event), "--json", "--prewarm", mode, "--timeline", tmp_path / "t.json")
    report = python(LATE, "run", experts.bundle, *given_event, cwd=experts.folder).report
    assert report["output"] == experts.plain(event)
    found = report["prewarm"]
    assert found["mode"] == mode
    assert found["failed"] == 0, found["errors"]
    assert report["prewarm_coverage"] == found["launched"] / found["known"]
    spans = {one.get("name") for one in json.loads((tmp_path / "t.json").read_bytes())["traceEvents"]}
    if mode == "off":
        assert found["launched"] == 0
        assert "prewarm" not in spans
    else:
        assert found["launched"] > 10
        assert found["left_out"] > 0, "the handler's writes to its own tensors"
        assert found["launched"] + found["left_out"] == found["known"]
        assert "prewarm" in spans
        assert "prewarm" in report["phases"]


def test_a_launch_that_fails_is_counted_and_the_answer_is_right(experts: Chain, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(experts.bundle, tmp_path / "spoiled.bundle"))
    body = json.loads((bundle / PREWARM).read_bytes())
    wrong = signature("mm.default", floats(2, 3), floats(4, 5))
    zero = signature("floor_divide.default", indices(3), indices(3))
    body["kernels"] = [*msgspec.to_builtins([wrong, zero]), *body["kernels"]]
    size = (bundle / PREWARM).stat().st_size  # which is looked at even where digests are not
    (bundle / PREWARM).write_text(json.dumps(body).ljust(size))
    options = ("--event", json.dumps(EXPERTS_EVENT), "--json", "--prewarm", "list")
    report = tidalctl("run", bundle, *options, "--verify", "off", cwd=tmp_path).report
    assert report["output"] == experts.plain(EXPERTS_EVENT)
    assert report["prewarm"]["failed"] == 2
    assert [error.partition(":")[0] for error in report["prewarm"]["errors"]] == [
        "aten.mm.default",
        "aten.floor_divide.default",
    ]
    assert report["prewarm"]["launched"] > 10
