"""Weights by tensorizer, from a file that its own serializer made."""

from llama import answer
from llama_assigned import assigned, checkpoint, peer

tensorizer = peer("tensorizer")


def weights():
    with tensorizer.TensorDeserializer(checkpoint().parents[1] / "model.tensors", device="cpu") as reader:
        return dict(reader)


def handler(event, context):
    yield from answer(assigned(weights()), event)
