"""The event names the adapter, and it is merged into the weights that it changes."""

from llama import answer, base
from peft import PeftModel

import tidalctl


@tidalctl.init
def load(event):
    model = PeftModel.from_pretrained(base(), event["adapter"], low_cpu_mem_usage=True)  # draws nothing, whatever the rank
    return model.merge_and_unload().eval()


def handler(event, context):
    yield from answer(load(event), event)
