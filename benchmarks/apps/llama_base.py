"""The base model alone: no adapter, and no peft."""

from llama import answer, base

import tidalctl


@tidalctl.init(static=True)
def load(event):
    return base()


def handler(event, context):
    yield from answer(load(event), event)
