"""Write two small random Llamas with a byte tokenizer, `tiny` and `wide`: bases for trying the adapters on.

    python examples/adapters/make_models.py examples/adapters/models

The same seed gives the same files.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "tie_word_embeddings": True},
    "wide": {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "tie_word_embeddings": False},
}
SPECIAL = ["<|endoftext|>", "<|user|>", "<|assistant|>"]
CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Each byte is a token, numbered as ByteLevel sorts them, and the special ones follow."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({sign: number for number, sign in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[0], chat_template=CHAT)


def make_model(folder: Path, seed: int = 0, **sizes: Any) -> None:
    """Write one model with its tokenizer. Its weights are larger than usual: untrained, it would only repeat itself."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=300,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=256,
        **sizes,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write two small random Llamas, `tiny` and `wide`.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name, sizes in SIZES.items():
        make_model(options.folder / name, options.seed, **sizes)
        print(options.folder / name)


if __name__ == "__main__":
    main()
