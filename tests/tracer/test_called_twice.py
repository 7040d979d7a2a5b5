"""A handler that can't be called twice on one state, and other things that are nobody's fault, are traced and compiled all the same."""

from collections.abc import Callable

import pytest
import torch
from conftest import Chain

from tidalctl.artifacts.state.storages import storage_names

APP = """
import io
import tidalctl
import torch

BUFFER, BYTES = io.StringIO(), io.BytesIO()

@tidalctl.init(static=True)
def load():
    return {"todo": {"a": 1}, "lazy": torch.nn.LazyLinear(3), "weight": torch.ones(2)}

def handler(event, context):
    state = load()
    return [state["todo"].pop("a"), state["weight"].tolist(), type(state["lazy"]).__name__]
"""


def test_a_handler_that_uses_its_state_up_and_a_lazy_module_in_it_are_traced(chain: Callable[..., Chain]) -> None:
    made = chain(APP, {})
    assert made.traced is not None
    assert "the handler raised KeyError: no first-launch tax is known" in made.traced.err
    assert "once only: first-launch tax unknown" in made.traced.err
    assert "the handler ran 2 times" in made.traced.err
    assert made.run({})["output"] == made.plain({})


def test_parameters_without_memory_are_no_weights() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = torch.ones(3)
    assert storage_names({"lazy": torch.nn.LazyLinear(3), "fake": fake, "meta": torch.ones(1, device="meta")}) == {}


def test_the_gradient_of_a_tensor_is_asked_for_only_where_torch_keeps_one(recwarn: pytest.WarningsRecorder) -> None:
    weight = torch.ones(2, requires_grad=True)
    assert len(storage_names([weight * 2, weight])) == 2
    assert not recwarn.list
