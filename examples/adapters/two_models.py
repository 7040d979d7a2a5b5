"""Two models, one of them chosen by the request.

They are folders below the one that ADAPTERS_MODELS names, or below `models` beside this file: see make_models.py.
The event is `{"model": "fast" or "good", "prompt": str, "max_new_tokens": int}`.
"""

import os
from pathlib import Path

import torch
from basemodel import answer, ask
from transformers import AutoModelForCausalLM, AutoTokenizer

import tidalctl

MODELS = {"fast": "tiny", "good": "wide"}
FOLDER = Path(os.environ.get("ADAPTERS_MODELS") or Path(__file__).parent / "models")


@tidalctl.init
def load(event):
    folder = FOLDER / MODELS[event["model"]]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return {"model": model, "tokenizer": AutoTokenizer.from_pretrained(folder)}


def handler(event, context):
    state = load(event)
    tokenizer = state["tokenizer"]
    yield from answer(state["model"], tokenizer, ask(tokenizer, event["prompt"]), event.get("max_new_tokens", 32))
