"""The event names the adapter; the base model is a static init, and attaching the adapter is ordinary code: nothing is inferred."""

from llama import answer, base
from peft import PeftModel

import tidalctl


@tidalctl.init(static=True)
def load_base():
    return base()


def handler(event, context):
    yield from answer(PeftModel.from_pretrained(load_base(), event["adapter"]).eval(), event)
