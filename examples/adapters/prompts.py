"""One model, and a prompt template chosen by the request: no tensor of the state depends on the event.

The event is `{"style": one of TEMPLATES, "prompt": str, "max_new_tokens": int}`.
"""

from basemodel import answer, load_base

import tidalctl

TEMPLATES = {
    "plain": "{prompt}",
    "question": "Question: {prompt}\nAnswer:",
    "poet": "You are a poet who answers in rhyme.\n\n{prompt}\n\nRhyme:",
    "translate": "Translate to French.\n\nEnglish: {prompt}\nFrench:",
}


@tidalctl.init
def load(event):
    template = TEMPLATES[event["style"]]
    model, tokenizer = load_base()
    return {"model": model, "tokenizer": tokenizer, "template": template}


def handler(event, context):
    state = load(event)
    text = state["template"].format(prompt=event["prompt"])
    yield from answer(state["model"], state["tokenizer"], text, event.get("max_new_tokens", 32))
