"""Weights by safetensors' `load_file`."""

from llama import answer
from llama_assigned import assigned, checkpoint
from safetensors.torch import load_file


def weights():
    return load_file(checkpoint())


def handler(event, context):
    yield from answer(assigned(weights()), event)
