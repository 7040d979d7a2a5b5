"""What a library notes of a model outside of it is noted of a restored one, too."""

from collections.abc import Callable

import pytest
from conftest import Chain

pytest.importorskip("transformers")

APP = """
import tidalctl
import torch
from transformers import LlamaConfig, LlamaForCausalLM

@tidalctl.init(static=True)
def load():
    torch.manual_seed(0)
    sizes = dict(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    return LlamaForCausalLM(LlamaConfig(**sizes, attn_implementation="eager")).eval()

def handler(event, context):
    asked = event.get("more", False)
    with torch.no_grad():
        out = load()(torch.tensor([[3, 5, 7]]), output_hidden_states=asked, output_attentions=asked)
    parts = [*(out.get("hidden_states") or ()), *(out.get("attentions") or ())]
    return [out.logits.sum().item(), [part.sum().item() for part in parts]]
"""


@pytest.mark.slow  # of a library that does as transformers does: runtime/test_import_cache.py
def test_a_model_gives_its_hidden_states_where_the_trace_did_not_ask_for_them(chain: Callable[..., Chain]) -> None:
    made = chain(APP, {})
    assert made.manifest["strategy"] == "snapshot", made.said()
    for event in ({}, {"more": True}):
        report = made.run(event)
        assert report["fallback"] is None
        assert report["output"] == made.plain(event)
    assert len(report["output"][1]) == 5
