"""A decoder in plain torch: bytes in, bytes out, one answer streamed piece by piece.

    python examples/plain_torch/app.py "Once upon a time"
    tidalctl trace examples/plain_torch/app.py --event examples/plain_torch/event.json

Its 4.8 million weights are made from a seed the first time and kept in a safetensors file beside this one, or in the folder
that PLAIN_TORCH_CACHE names. Nobody trained it: the answer is noise, but always the same noise.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import tidalctl

WEIGHTS = Path(os.environ.get("PLAIN_TORCH_CACHE") or Path(__file__).parent) / "plain_torch.safetensors"
VOCABULARY, WIDTH, LAYERS, HEADS, HIDDEN, CONTEXT = 256, 256, 6, 8, 688, 512
HEAD = WIDTH // HEADS
Cache = list[tuple[Tensor, Tensor]]  # keys and values of each layer, (HEADS, CONTEXT, HEAD)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of features by the angle of its position."""
    one, other = x.chunk(2, dim=-1)
    return torch.cat((one * cos - other * sin, other * cos + one * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, start: int, cache: tuple[Tensor, Tensor]) -> Tensor:
        length, (keys, values) = len(x), cache
        query, key, value = self.qkv(x).view(length, 3, HEADS, HEAD).permute(1, 2, 0, 3)
        end = start + length
        keys[:, start:end], values[:, start:end] = rotate(key, cos, sin), value
        # the prompt is read in one go and must not look ahead; a single new token may look at all before it
        seen = F.scaled_dot_product_attention(rotate(query, cos, sin), keys[:, :end], values[:, :end], is_causal=start == 0)
        return self.out(seen.transpose(0, 1).reshape(length, WIDTH))


class SwiGLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.up = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.down = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.RMSNorm(WIDTH, eps=1e-5), Attention()
        self.mlp_norm, self.mlp = nn.RMSNorm(WIDTH, eps=1e-5), SwiGLU()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, start: int, cache: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin, start, cache)
        return x + self.mlp(self.mlp_norm(x))


class Decoder(nn.Module):
    cos: Tensor
    sin: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH, eps=1e-5)
        self.make_rotary()

    def make_rotary(self) -> None:
        """Angles of every position. They are in no file: after building on the meta device they must be made again."""
        frequencies = 10000.0 ** (-torch.arange(0, HEAD, 2) / HEAD)
        angles = torch.outer(torch.arange(CONTEXT), frequencies)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor, start: int, caches: Cache) -> Tensor:
        """Logits of the token that follows `tokens`, which stand at `start` and after."""
        x = self.embedding(tokens)
        cos, sin = self.cos[start : start + len(tokens)], self.sin[start : start + len(tokens)]
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, cos, sin, start, cache)
        return F.linear(self.norm(x[-1]), self.embedding.weight)  # tied: the embedding reads and writes


@dataclass
class State:
    model: Decoder
    printable: Tensor  # which bytes may be answered, since an untrained model would send a terminal anything


def make_weights(path: Path, seed: int = 0) -> None:
    """Write random weights. The file appears whole or not at all, so that two processes may do this at once."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Decoder().state_dict().items()}
    weights = {
        # twice the usual scale: an untrained model with less of it only repeats itself
        name: torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator) * 2 * shape[-1] ** -0.5
        for name, shape in shapes.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(weights, partial)
    os.replace(partial, path)


@tidalctl.init(static=True)
def load(event: dict[str, Any]) -> State:
    """Build the model without memory, give it the tensors of the file as they are, and make what the file does not hold."""
    if not WEIGHTS.exists():
        make_weights(WEIGHTS)
    with torch.device("meta"):
        model = Decoder()
    model.load_state_dict(load_file(WEIGHTS), assign=True)
    model.make_rotary()
    codes = torch.arange(VOCABULARY)
    return State(model.requires_grad_(False).eval(), (codes >= 32) & (codes < 127))


@torch.inference_mode()
def next_token(state: State, tokens: list[int], start: int, caches: Cache) -> int:
    logits = state.model(torch.tensor(tokens), start, caches)
    return int(logits.masked_fill(~state.printable, -torch.inf).argmax())


def handler(event: dict[str, Any], context: Any) -> Iterator[str]:
    """Yield the answer to `event["prompt"]`, greedily, one character a piece, at most `event["max_new_tokens"]` of them."""
    state = load(event)
    tokens = list(event["prompt"].encode() or b" ")[-CONTEXT // 2 :]
    caches = [(torch.zeros(HEADS, CONTEXT, HEAD), torch.zeros(HEADS, CONTEXT, HEAD)) for _ in range(LAYERS)]
    start = 0
    for _ in range(min(int(event.get("max_new_tokens", 16)), CONTEXT - len(tokens))):
        token = next_token(state, tokens, start, caches)
        yield chr(token)
        start, tokens = start + len(tokens), [token]


if __name__ == "__main__":
    for piece in handler({"prompt": " ".join(sys.argv[1:]) or "Once upon a time"}, None):
        print(piece, end="", flush=True)
    print()
