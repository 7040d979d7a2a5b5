"""The precision of the model, and the device that it is on, asked for by each request.

The event is `{"dtype": "bfloat16", "device": "cpu", "prompt": str, "max_new_tokens": int}`; the device may be left out.
"""

import torch
from basemodel import answer, ask, load_base

import tidalctl


@tidalctl.init
def load(event):
    model, tokenizer = load_base()
    model = model.to(device=event.get("device", "cpu"), dtype=getattr(torch, event["dtype"]))
    return {"model": model, "tokenizer": tokenizer}


def handler(event, context):
    state = load(event)
    tokenizer = state["tokenizer"]
    yield from answer(state["model"], tokenizer, ask(tokenizer, event["prompt"]), event.get("max_new_tokens", 32))
