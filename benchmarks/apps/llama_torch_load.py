"""Weights by `torch.load(mmap=True)`, from a file that `torch.save` made."""

import torch
from llama import answer
from llama_assigned import assigned, checkpoint


def weights():
    return torch.load(checkpoint().parents[1] / "model.pt", mmap=True, weights_only=True)


def handler(event, context):
    yield from answer(assigned(weights()), event)
