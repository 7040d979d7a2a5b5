"""A small mixture of experts: which of the eight a prompt reaches depends on its tokens. Weights are read from a file."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

import tidalctl

WIDTH, EXPERTS, WORDS = 64, 8, 97


class Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.down = nn.Linear(2 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.experts = nn.ModuleList(Expert() for _ in range(EXPERTS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, ids):
        x = self.embedding(ids)
        out = torch.zeros_like(x)
        for number in range(EXPERTS):  # a word belongs to one expert
            mine = ids % EXPERTS == number
            if mine.any():
                out[mine] = self.experts[number](x[mine])
        return self.head(self.norm(x + out.cumsum(0)))


@tidalctl.init(static=True)
def load(event):
    with torch.device("meta"):
        model = Mixture()
    model.load_state_dict(load_file(Path(__file__).parent / "experts.safetensors"), assign=True)
    return {"model": model.eval(), "scale": torch.tensor([1.5, 0.25])}


@torch.inference_mode()
def handler(event, context):
    state = load(event)
    model = state["model"]
    if event.get("overwrite"):
        with torch.no_grad():
            model.head.weight[event["overwrite"]] = 0.125
    ids = torch.tensor(event["prompt"])
    for _ in range(event.get("tokens", 2)):
        logits = model(ids)[-1] * state["scale"][0]
        ids = torch.cat((ids, logits.argmax().reshape(1)))
        yield [ids[-1].item(), hashlib.sha256(logits.numpy().tobytes()).hexdigest()]
