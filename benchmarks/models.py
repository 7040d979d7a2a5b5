"""Makes the checkpoints that the benchmarks start from: Llamas with random weights, and PEFT LoRA adapters for them.

    python benchmarks/models.py [--shape 1b] [--models build/models] [--adapters 7] [--targets qv|all] [--dtype float32|bfloat16]

What is there already is kept; a folder gets its name only when it is complete. Prints where everything lies as one JSON object.
There is no tokenizer: the functions in `apps/` take token ids.
"""

import argparse
import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

MODELS = Path(__file__).parents[1] / "build/models"
RANKS = (8, 16)  # in turn, so that neighbours differ in structure and not only in values
TARGETS = {
    "qv": ("q_proj", "v_proj"),
    "all": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BLOCK = 2**22  # normals drawn in float32 at a time
B_STD = 0.1  # with A as small as a layer's weights, B @ A comes out of their size: answers must tell adapters apart


@dataclass(frozen=True)
class Shape:
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int

    def config(self) -> LlamaConfig:
        return LlamaConfig(
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            vocab_size=self.vocabulary,
            max_position_embeddings=2048,
            rms_norm_eps=1e-5,
            initializer_range=self.hidden**-0.5,
            tie_word_embeddings=False,
            bos_token_id=1,
            eos_token_id=2,
            dtype=torch.bfloat16,
        )

    def on_meta(self) -> LlamaForCausalLM:
        """The model in bfloat16, with no memory behind it yet."""
        with torch.device("meta"):
            return LlamaForCausalLM(self.config()).to(torch.bfloat16)


SHAPES = {
    "tiny": Shape(hidden=64, intermediate=176, layers=2, heads=4, kv_heads=2, vocabulary=256),
    "1b": Shape(hidden=2048, intermediate=5632, layers=22, heads=32, kv_heads=4, vocabulary=32000),  # TinyLlama's
}


def fill_normal(tensor: Tensor, std: float, name: str) -> Tensor:
    """Fill with normals that depend on the name alone, so that no order of tensors matters. Holds one block besides."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    block = torch.empty(min(BLOCK, tensor.numel()))
    for part in tensor.view(-1).split(BLOCK):
        part.copy_(block[: part.numel()].normal_(0, std, generator=generator))
    return tensor


def make_base(models: Path, name: str) -> Path:
    """The checkpoint of a shape as `from_pretrained` takes it: config, and one safetensors file in bfloat16."""

    def write(folder: Path) -> None:
        shape = SHAPES[name]
        model = shape.on_meta().to_empty(device="cpu")
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if parameter.dim() == 1:
                    parameter.fill_(1)  # norms
                else:
                    fill_normal(parameter, shape.hidden**-0.5, f"{name} {key}")
        model.save_pretrained(folder, max_shard_size="100GB")

    return _complete(models / name / "base", write)


def make_adapters(models: Path, name: str, count: int, targets: str = "qv", dtype: str = "float32") -> list[Path]:
    """`count` LoRA adapters for the shape, as `PeftModel.from_pretrained` takes them, of the ranks in turn; B is not zero."""
    model = SHAPES[name].on_meta()
    layers = [(key, module) for key, module in model.named_modules() if key.rpartition(".")[2] in TARGETS[targets]]
    folder = models / name / f"adapters-{targets}-{dtype}"
    return [
        _make_adapter(folder / f"{number:02}-rank{rank}", models / name / "base", layers, rank, dtype)
        for number, rank in ((number, RANKS[number % len(RANKS)]) for number in range(count))
    ]


def _make_adapter(folder: Path, base: Path, layers: Sequence[tuple[str, nn.Linear]], rank: int, dtype: str) -> Path:
    def write(partial: Path) -> None:
        tensors = {}
        for key, linear in layers:
            for matrix, size, std in (
                ("lora_A", (rank, linear.in_features), linear.in_features**-0.5),
                ("lora_B", (linear.out_features, rank), B_STD),
            ):
                full = f"base_model.model.{key}.{matrix}.weight"
                tensors[full] = fill_normal(torch.empty(size, dtype=DTYPES[dtype]), std, f"{folder.name} {full}")
        LoraConfig(
            task_type="CAUSAL_LM",
            base_model_name_or_path=str(base),
            r=rank,
            lora_alpha=2 * rank,
            target_modules=sorted({key.rpartition(".")[2] for key, _ in layers}),
            inference_mode=True,
        ).save_pretrained(partial)
        save_file(tensors, partial / "adapter_model.safetensors", metadata={"format": "pt"})

    return _complete(folder, write)


def _complete(folder: Path, write: Callable[[Path], None]) -> Path:
    """The folder, written beside its name first where it does not stand yet."""
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        os.rename(partial, folder)
        print(f"made {folder}", file=sys.stderr)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1b")
    parser.add_argument("--models", type=Path, default=MODELS, help="where they are kept")
    parser.add_argument("--adapters", type=int, default=7, help="how many")
    parser.add_argument("--targets", choices=sorted(TARGETS), default="qv", help="layers that an adapter changes")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32", help="of an adapter")
    options = parser.parse_args()
    models = options.models.absolute()
    base = make_base(models, options.shape)
    adapters = make_adapters(models, options.shape, options.adapters, options.targets, options.dtype)
    print(json.dumps({"base": str(base), "adapters": [str(adapter) for adapter in adapters]}))


if __name__ == "__main__":
    main()
