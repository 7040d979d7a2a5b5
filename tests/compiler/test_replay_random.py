"""Random chains of reads, views, writes and operators: a replay gives the plain state."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_cases import EVENTS, MODEL, OTHER, trace
from safetensors import safe_open
from safetensors.torch import save_file

CHAIN = st.lists(st.tuples(st.integers(0, 17), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=14)


def made_by(chain: list[tuple[int, int, int]], model: Path, event: dict[str, Any]) -> list[torch.Tensor]:
    """A random program: each step takes two of the tensors so far."""
    with safe_open(model, "pt") as file:
        pool = [file.get_tensor("first.weight"), file.get_tensor("second.weight")]
        for kind, i, j in chain:
            one, two = pool[i % len(pool)], pool[j % len(pool)]
            alike = two if two.shape == one.shape else one
            new: Any = None
            match kind:
                case 0:
                    new = one.to(torch.float64 if one.dtype != torch.float64 else torch.float32)
                case 1:
                    new = one * 0.5
                case 2:
                    new = one + alike
                case 3:
                    new = one[1:] if one.dim() and len(one) > 2 else one.T
                case 4:
                    new = one.T
                case 5:
                    one.mul_(2)
                case 6:
                    one.copy_(alike.clone())
                case 7:
                    new = torch.empty_like(one).copy_(alike)
                case 8:
                    one[:1] = event["scale"]
                case 9:
                    new = one * event["scale"]
                case 10:
                    new = file.get_tensor("first.weight")
                case 11:
                    new = file.get_slice("second.weight")[1:3]
                case 12:
                    new = torch.cat([one.flatten(), two.flatten()]).to(torch.float16)
                case 13:
                    new = torch.zeros_like(one) + torch.arange(float(one.shape[-1]))
                case 14:
                    one.zero_()
                case 15:
                    new = one.contiguous().view(-1)
                case 16:
                    new = torch.full((2, 2), 3.0).to(torch.bfloat16)
                case 17:
                    new = one.clone().add_(alike)
            if new is not None:
                pool.append(new)
    return pool


def test_random_programs_replay_to_the_plain_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    answered = 0

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(chain=CHAIN)
    def check(chain: list[tuple[int, int, int]]) -> None:
        nonlocal answered
        root = tmp_path_factory.mktemp("program", numbered=True)
        generator = torch.Generator().manual_seed(1)
        save_file({n: torch.randn(4, 4, generator=generator) for n in ("first.weight", "second.weight")}, root / MODEL)
        traced = trace(lambda event: made_by(chain, root / MODEL, event), root)
        for event in (*EVENTS, OTHER):
            traced.matches(event)
        answered += traced.last.answered

    check()
    assert answered > 50
