"""Weights by the Run:ai Model Streamer."""

from llama import answer
from llama_assigned import assigned, checkpoint, peer

runai_model_streamer = peer("runai_model_streamer")


def weights():
    with runai_model_streamer.SafetensorsStreamer() as streamer:
        streamer.stream_file(str(checkpoint()))
        return dict(streamer.get_tensors())


def handler(event, context):
    yield from answer(assigned(weights()), event)
