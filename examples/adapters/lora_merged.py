"""A LoRA adapter for each request, merged into the base by PEFT, so that decoding costs what it costs without one.

The event is `{"adapter": folder, "prompt": str, "max_new_tokens": int}`.
"""

from basemodel import answer, ask, load_base
from peft import PeftModel

import tidalctl


@tidalctl.init
def load(event):
    adapter = event["adapter"]
    base, tokenizer = load_base()
    # on the meta device, or PEFT would draw random numbers for what the adapter overwrites, as many as its rank says
    model = PeftModel.from_pretrained(base, adapter, low_cpu_mem_usage=True).merge_and_unload()
    return {"model": model.eval(), "tokenizer": tokenizer}


def handler(event, context):
    state = load(event)
    tokenizer = state["tokenizer"]
    yield from answer(state["model"], tokenizer, ask(tokenizer, event["prompt"]), event.get("max_new_tokens", 32))
