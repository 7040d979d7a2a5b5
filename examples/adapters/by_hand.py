"""A Llama in plain torch, and a LoRA adapter merged into it by hand: W += scale * B @ A.

The base is the folder that ADAPTERS_BASE names, or `models/tiny` beside this file: see make_models.py. Bytes are its tokens.
The event is `{"adapter": folder, "scale": number, "prompt": str, "max_new_tokens": int}`.
"""

import hashlib
import json
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import tidalctl

BASE = Path(os.environ.get("ADAPTERS_BASE") or Path(__file__).parent / "models" / "tiny")
LONGEST = 256


def rotate(x, cos, sin):
    one, other = x.chunk(2, dim=-1)
    return torch.cat((one * cos - other * sin, other * cos + one * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, self.heads, self.groups = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
        self.head = width // self.heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, self.groups * self.head, bias=False)
        self.v_proj = nn.Linear(width, self.groups * self.head, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x, cos, sin):
        query = rotate(self.q_proj(x).view(-1, self.heads, self.head).transpose(0, 1), cos, sin)
        key = rotate(self.k_proj(x).view(-1, self.groups, self.head).transpose(0, 1), cos, sin)
        value = self.v_proj(x).view(-1, self.groups, self.head).transpose(0, 1)
        times = self.heads // self.groups
        key, value = key.repeat_interleave(times, 0), value.repeat_interleave(times, 0)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.o_proj(seen.transpose(0, 1).flatten(1))


class MLP(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, eps = config["hidden_size"], config["rms_norm_eps"]
        self.input_layernorm, self.self_attn = nn.RMSNorm(width, eps), Attention(config)
        self.post_attention_layernorm, self.mlp = nn.RMSNorm(width, eps), MLP(width, config["intermediate_size"])

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Its parameters have the names that they have in the file, without the leading `model.`"""

    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))
        self.norm = nn.RMSNorm(config["hidden_size"], config["rms_norm_eps"])

    def make_rotary(self, head):
        angles = torch.outer(torch.arange(LONGEST), 10000.0 ** (-torch.arange(0, head, 2) / head))
        self.cos, self.sin = angles.cos(), angles.sin()

    def forward(self, tokens):
        """Logits of the token that follows."""
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, self.cos[: len(tokens)], self.sin[: len(tokens)])
        return F.linear(self.norm(x[-1]), self.embed_tokens.weight)  # tied: the embedding reads and writes


@tidalctl.init
def load(event):
    config = json.loads((BASE / "config.json").read_text())
    with torch.device("meta"):
        model = Llama(config)
    weights = load_file(BASE / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): weight for name, weight in weights.items()}, assign=True)
    model.make_rotary(config["hidden_size"] // config["num_attention_heads"])
    adapter = load_file(event["adapter"] + "/adapter_model.safetensors")
    with torch.no_grad():
        for key in adapter:
            if key.endswith(".lora_A.weight"):
                name = key.removeprefix("base_model.model.model.").replace(".lora_A.", ".")
                a, b = adapter[key], adapter[key.replace(".lora_A.", ".lora_B.")]
                model.get_parameter(name).add_(event["scale"] * b @ a)
    return model.requires_grad_(False).eval()


@torch.inference_mode()
def handler(event, context):
    """Yield characters, greedily. Last comes a digest of all logits, by which two runs are compared."""
    model = load(event)
    tokens, digest = list(event["prompt"].encode())[: LONGEST // 2], hashlib.sha256()
    for _ in range(min(event.get("max_new_tokens", 32), LONGEST // 2)):
        logits = model(torch.tensor(tokens))
        digest.update(logits.numpy().tobytes())
        tokens.append(int(logits[32:127].argmax()) + 32)  # what a terminal can show
        yield chr(tokens[-1])
    yield f"\n[{digest.hexdigest()[:16]}]\n"
