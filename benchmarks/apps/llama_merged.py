"""The event names the adapter, and it is merged into the weights that it changes."""

from llama import answer, base
from peft import PeftModel

import tidalctl


@tidalctl.init
def load(event):
    return PeftModel.from_pretrained(base(), event["adapter"]).merge_and_unload().eval()


def handler(event, context):
    yield from answer(load(event), event)
