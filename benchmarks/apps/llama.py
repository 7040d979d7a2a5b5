"""What the functions beside this one share: the base model, and greedy decoding. The event is

{"prompt": [token ids], "tokens": how many to answer with, "digest": whether one of the logits comes last,
 "adapter": a folder, for those that look at it}
"""

import hashlib
import os
from collections.abc import Iterator

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel


def base() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(os.environ["LLAMA_BASE"], dtype=torch.bfloat16).eval()


@torch.inference_mode()
def answer(model, event) -> Iterator[int | str]:
    """Token ids, each as soon as it is known. No end of sequence: random weights mean nothing by it."""
    ids, past, seen = torch.tensor([event["prompt"]]), None, []
    for _ in range(event.get("tokens", 8)):
        out = model(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1)
        past, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
        seen.append(out.logits)
        yield ids.item()
    if event.get("digest"):
        yield hashlib.sha256(torch.cat(seen).view(torch.uint8).numpy()).hexdigest()
