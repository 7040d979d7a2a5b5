"""The static function: always the same adapter, the one that LLAMA_ADAPTER names."""

import os

from llama import answer, base
from peft import PeftModel

import tidalctl


@tidalctl.init(static=True)
def load(event):
    return PeftModel.from_pretrained(base(), os.environ["LLAMA_ADAPTER"]).eval()


def handler(event, context):
    yield from answer(load(event), event)
