"""What the loaders beside this one share: where their files lie, and a model without memory that takes tensors as they are."""

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel


def checkpoint() -> Path:
    """The file that `from_pretrained` reads. What other loaders need instead lies beside its folder (`../peer_files.py`)."""
    return Path(os.environ["LLAMA_BASE"], "model.safetensors")


def peer(name: str) -> ModuleType:
    """A package that may lie apart, in the folder that LLAMA_PEERS names. In view from now on only: not to transformers' imports."""
    folder = os.environ.get("LLAMA_PEERS")
    if folder and folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def assigned(weights: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """The model over these tensors, without a copy. What no file holds, the rotary angles, is made again."""
    config = AutoConfig.from_pretrained(os.environ["LLAMA_BASE"])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(weights, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    return model.eval()
