"""Operators wait for the weights that they are given, where no module's call does, and the mode that makes them goes."""

import threading
from typing import Any

import torch
from asked import Asked
from torch import nn

from tidalctl.runtime.weights.operator_gate import OperatorGate


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
    assert asked.all == 1
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
            assert asked.all == number
        assert torch.overrides._get_current_function_mode() is None
    torch.set_default_device("cpu")
    try:
        gate.close()
    finally:
        torch.set_default_device(None)
    assert torch.overrides._get_current_function_mode() is gate, "a default device's mode lies below and goes by itself"
    gate.open()
    assert gate.leave()
    assert asked.all == 2


def test_in_another_thread_a_modules_call_waits_for_everything() -> None:
    """The mode is not there, and a module may read what it does not own."""
    model = Borrows()
    gate, asked, _ = gate_of(model)
    gate.close()
    try:
        for number in (1, 1):  # once it is open nothing is waited for
            thread = threading.Thread(target=model, args=(torch.ones(1, 4),))
            thread.start()
            thread.join()
            assert asked.all == number
    finally:
        gate.open()
        assert gate.leave()
