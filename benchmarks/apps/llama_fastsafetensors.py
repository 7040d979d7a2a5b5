"""Weights by fastsafetensors, as it works without a GPU."""

from llama import answer
from llama_assigned import assigned, checkpoint, peer

fastsafetensors = peer("fastsafetensors")


def weights():
    loader = fastsafetensors.SafeTensorsFileLoader(pg=None, device="cpu", nogds=True)
    loader.add_filenames({0: [str(checkpoint())]})
    buffer = loader.copy_files_to_device()
    return {name: buffer.get_tensor(name) for name in loader.get_keys()}


def handler(event, context):
    yield from answer(assigned(weights()), event)
