"""A LoRA adapter for each request, attached by PEFT to a base that is marked static: the recommended form.

The base is built by a function that never looks at the event. What depends on the event is ordinary code of the handler, so that one
traced event is enough, and the bundle serves any adapter.

The event is `{"adapter": folder, "prompt": str, "max_new_tokens": int}`.
"""

import basemodel
from basemodel import answer, ask
from peft import PeftModel

import tidalctl


@tidalctl.init(static=True)
def load_base():
    return basemodel.load_base()


def handler(event, context):
    base, tokenizer = load_base()
    model = PeftModel.from_pretrained(base, event["adapter"]).eval()
    yield from answer(model, tokenizer, ask(tokenizer, event["prompt"]), event.get("max_new_tokens", 32))
