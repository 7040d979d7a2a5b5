"""An async service: the model is loaded in a worker thread, once, and the answer is streamed."""

import asyncio

import torch

service = {}


def load():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Embedding(256, 512), torch.nn.Linear(512, 256)).eval()


async def handler(event, context):
    if "model" not in service:
        service["model"], service["lock"] = await asyncio.to_thread(load), asyncio.Lock()
    tokens = list(event["text"].encode())
    for _ in range(event.get("n", 3)):
        async with service["lock"]:
            scores = await asyncio.to_thread(service["model"], torch.tensor(tokens))
        tokens.append(int(scores[-1].argmax()))
        yield tokens[-1]
