"""Write random LoRA adapters for a base model, as PEFT writes them.

    python examples/adapters/make_adapters.py adapters -n 4
    python examples/adapters/make_adapters.py adapters -n 4 --base examples/adapters/models/tiny

They change what the model answers (lora_B is not zero), and the same seed gives the same files.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from basemodel import checkpoint
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

ALPHAS = (8, 20, 16)  # an odd number of them, so that each goes with each rank


def shapes_of(folder: Path, options: dict[str, Any], targets: list[str]) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of the base's linear modules that the adapters are for."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, **options))
    linear = {name: tuple(m.weight.shape) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    return {name: shape for name, shape in linear.items() if name.rpartition(".")[2] in targets}


def make_adapter(folder: Path, shapes: dict[str, tuple[int, int]], rank: int, alpha: int, seed: int, **more: Any) -> None:
    """Write adapter_config.json and adapter_model.safetensors."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, (outputs, inputs) in shapes.items():
        weights[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) * inputs**-0.5
        weights[f"base_model.model.{name}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * 0.02
    targets = sorted({name.rpartition(".")[2] for name in shapes})
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM", **more)
    config.inference_mode = True
    config.save_pretrained(folder)
    written = json.loads((folder / "adapter_config.json").read_text())
    written["target_modules"] = targets  # PEFT keeps a set, whose order is another in each process
    (folder / "adapter_config.json").write_text(json.dumps(written, indent=2, sort_keys=True))
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description="Write random LoRA adapters for a base model, as PEFT writes them.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("-n", type=int, default=2, help="how many")
    parser.add_argument("--base", help="a model's folder; SmolLM2's GGUF file where none is given")
    parser.add_argument("--ranks", default="4,8", help="in turn")
    parser.add_argument("--targets", default="q_proj,v_proj,down_proj", help="names of linear modules")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.base:
        os.environ["ADAPTERS_BASE"] = given.base
    base, options = checkpoint()
    shapes = shapes_of(base, options, given.targets.split(","))
    ranks = [int(rank) for rank in given.ranks.split(",")]
    for index in range(given.n):
        folder = given.folder / f"{index:02}"
        rank, alpha = ranks[index % len(ranks)], ALPHAS[index % len(ALPHAS)]
        make_adapter(folder, shapes, rank, alpha, seed=given.seed + index)
        print(f"{folder}: rank {rank}, alpha {alpha}")


if __name__ == "__main__":
    main()
