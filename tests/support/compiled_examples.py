"""The examples, compiled, with events of each and what the plain functions answer."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from conftest import python, tidalctl
from functions.test_shapes import CALL, EXAMPLES, SERVERS

EVENTS = 20  # of each function
PLAIN_TORCH = EXAMPLES.parent / "plain_torch"


class Asked(NamedTuple):
    """An event of a function, and what the plain one gives: `output`, or `raised`."""

    name: str
    event: Any
    plain: dict[str, Any]


def repeated(name: str, plain: dict[str, dict[str, Any]], count: int = EVENTS) -> list[Asked]:
    """Return so many events of a function as are asked, of those whose plain answers there are."""
    texts = [*plain] * count
    return [Asked(name, json.loads(text), plain[text]) for text in texts[:count]]


def compiled_examples(folder: Path, count: int = EVENTS) -> tuple[list[Path], list[Asked], dict[str, str]]:
    """Return the bundles of all examples that need no large model, `count` events of each, and variables for their environment."""
    env = {"SM_MODEL_DIR": str(folder / "model"), "PLAIN_TORCH_CACHE": str(folder)}
    made = [folder / "plain_torch.bundle"]
    tidalctl("trace", PLAIN_TORCH / "app.py", "--event", PLAIN_TORCH / "event.json", "-o", "x.trace", cwd=folder, env=env).ok()
    tidalctl("compile", "x.trace", "-o", made[0], cwd=folder, env=env).ok()
    events: list[dict[str, Any]] = [{"prompt": "Once", "max_new_tokens": 3}, {"prompt": "upon a time", "max_new_tokens": 4}]
    call = CALL.format("import app; answer = list(app.handler(event, None))")
    plain = {
        json.dumps(event): {"output": python(call, PLAIN_TORCH, json.dumps(event), cwd=folder, env=env).report}
        for event in events
    }
    asked = repeated("plain_torch", plain, count)
    for shape, (target, options, server) in SERVERS.items():
        place = folder / shape
        shutil.copytree(EXAMPLES / shape, place, ignore=shutil.ignore_patterns("__pycache__"))
        if shape == "sagemaker":
            script = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
            python(script, place / target, cwd=folder, env=env).ok()
        words = ("--event", '{"text": "cold start"}', *options, "-o", "x.trace", "--force")
        tidalctl("trace", f"{shape}/{target}", *words, cwd=folder, env=env).ok()
        made.append(folder / f"{shape}.bundle")
        tidalctl("compile", "x.trace", "-o", made[-1], cwd=folder, env=env).ok()
        call = CALL.format(server)
        texts = [json.dumps({"text": text}) for text in ("cold start", "another")]
        plain = {text: {"output": python(call, place, text, cwd=folder, env=env).report} for text in texts}
        asked += repeated(shape, plain, count)
    return made, asked, env
