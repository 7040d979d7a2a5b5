"""The same as lora_nested.py, without a mark: the function that builds the base is named, for code that nobody may edit.

    tidalctl trace examples/adapters/lora_named.py --init basemodel:load_base --event '{"adapter": …, "prompt": …}'

The event is `{"adapter": folder, "prompt": str, "max_new_tokens": int}`.
"""

from basemodel import answer, ask, load_base
from peft import PeftModel


def handler(event, context):
    base, tokenizer = load_base()
    model = PeftModel.from_pretrained(base, event["adapter"]).eval()
    yield from answer(model, tokenizer, ask(tokenizer, event["prompt"]), event.get("max_new_tokens", 32))
