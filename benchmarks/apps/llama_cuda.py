"""The base model on a GPU. LLAMA_PLACE says how plain init brings it there: `device_map`, or `to` after loading it on the CPU."""

import os
from collections.abc import Iterator

import torch
from transformers import AutoModelForCausalLM

import tidalctl


@tidalctl.init(static=True)
def load(event):
    base = os.environ["LLAMA_BASE"]
    if os.environ["LLAMA_PLACE"] == "device_map":
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, device_map="cuda").eval()
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).eval().to("cuda")


def handler(event, context):
    yield from answer(load(event), event)


@torch.inference_mode()
def answer(model, event) -> Iterator[int]:
    """Token ids, each as soon as the host knows it."""
    ids, past = torch.tensor([event["prompt"]], device="cuda"), None
    for _ in range(event["tokens"]):
        out = model(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1)
        past, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
        yield ids.item()
