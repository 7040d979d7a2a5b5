"""Near-duplicate search: the signs of a text's projections on random planes, which nobody gave a seed.

`handler` draws them with `torch.randn` alone, whose generator torch seeds from the system in each process. `from_entropy` does
seed a generator, but with other bytes each time. Neither is reproducible: one process's planes are never another's.
The event is `{"text": str}`.
"""

import hashlib
import os

import torch

import tidalctl

BITS, TRIGRAMS = 16, 512


@tidalctl.init
def load(event):
    return {"planes": torch.randn(BITS, TRIGRAMS)}


@tidalctl.init
def load_from_entropy(event):
    generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big"))
    return {"planes": torch.randn(BITS, TRIGRAMS, generator=generator)}


def bits(planes, text):
    counts = torch.zeros(TRIGRAMS)
    for start in range(len(text) - 2):
        counts[int(hashlib.sha256(text[start : start + 3].encode()).hexdigest(), 16) % TRIGRAMS] += 1
    return "".join(str(int(side)) for side in (planes @ counts > 0))


def handler(event, context):
    return bits(load(event)["planes"], event["text"])


def from_entropy(event, context):
    return bits(load_from_entropy(event)["planes"], event["text"])
