"""A LitServe `LitAPI`: `setup(device)`, then `decode_request`, `predict` and `encode_response` for the event, without batching."""

import ast
import functools
from collections.abc import Callable
from typing import Any

from tidalctl.function.shapes import class_of


def find(tree: ast.Module, name: str) -> str | None:
    return class_of(tree, name, "LitAPI", "setup", "decode_request", "predict")


def init(module: str, name: str) -> str:
    return f"{module}:{name}.setup"


def handler(module: Any, name: str) -> Callable[[Any, Any], Any]:
    @functools.cache
    def ready() -> Any:
        made = getattr(module, name)()
        made.setup(_device())
        return made

    def handle(event: Any, context: Any) -> Any:
        api = ready()
        given = api.decode_request(event) if hasattr(api, "decode_request") else event
        batched = getattr(api, "max_batch_size", 1) > 1
        answer = api.predict(api.batch([given]) if batched else given)
        answer = list(api.unbatch(answer))[0] if batched else answer  # noqa: RUF015 - a list, or an array
        return api.encode_response(answer) if hasattr(api, "encode_response") else answer

    return handle


def _device() -> str:
    """Return the device that the server would give the first worker."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
