"""Any callable: `--shape keywords` hands it the event's fields."""

import functools

import torch


@functools.cache
def load():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Embedding(256, 512), torch.nn.Linear(512, 256)).eval()


def following(text, top=1):
    with torch.inference_mode():
        return load()(torch.tensor(list(text.encode()))).mean(0).topk(top).indices.tolist()
