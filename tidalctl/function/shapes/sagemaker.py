"""A SageMaker inference script: `model_fn(model_dir)`, then `input_fn`, `predict_fn` and `output_fn`, or `transform_fn`, for the event.

The event is the body of a request of the type `application/json`, which is also what it accepts; or it is a whole request, with `body`
(a text as it is, anything else as JSON), `content_type` and `accept`. Functions that the script leaves out do what is plain: the body
goes to the model, and what the model gives is the answer.
"""

import ast
import functools
import inspect
import json
import os
from collections.abc import Callable
from typing import Any

from tidalctl.function.shapes import functions_of

TYPE = "application/json"
MODEL_DIR = "/opt/ml/model"  # where SageMaker puts the model, if SM_MODEL_DIR does not say otherwise


def find(tree: ast.Module, name: str) -> str | None:
    named = {function.name for function in functions_of(tree)}
    return "model_fn" if name in ("", "model_fn") and "model_fn" in named else None


def init(module: str, name: str) -> str:
    return f"{module}:model_fn"


def handler(module: Any, name: str) -> Callable[[Any, Any], Any]:
    @functools.cache
    def model() -> Any:
        return _call(module, "model_fn", os.environ.get("SM_MODEL_DIR", MODEL_DIR))

    def handle(event: Any, context: Any) -> Any:
        loaded = model()
        request = event if "body" in event and event.keys() <= {"body", "content_type", "accept"} else {"body": event}
        data, content_type, accept = request["body"], request.get("content_type", TYPE), request.get("accept", TYPE)
        text = data if isinstance(data, str) else json.dumps(data)
        if hasattr(module, "transform_fn"):
            return _answer(_call(module, "transform_fn", loaded, text, content_type, accept))
        if hasattr(module, "input_fn"):
            data = _call(module, "input_fn", text, content_type)
        answer = _call(module, "predict_fn", data, loaded) if hasattr(module, "predict_fn") else loaded(data)
        return _answer(_call(module, "output_fn", answer, accept)) if hasattr(module, "output_fn") else answer

    return handle


def _call(module: Any, name: str, *arguments: Any) -> Any:
    """Call a function of the script, which may take the server's context besides, as None."""
    function = getattr(module, name)
    required = [one for one in inspect.signature(function).parameters.values() if one.default is one.empty]
    more = [None] * (len(required) - len(arguments)) if all(one.kind is not one.VAR_POSITIONAL for one in required) else []
    return function(*arguments, *more)


def _answer(given: Any) -> Any:
    """Return the JSON of a response's body, which may come with its type."""
    body = given[0] if isinstance(given, tuple) else given
    if isinstance(body, str | bytes | bytearray):
        try:
            return json.loads(body)
        except ValueError:
            return body if isinstance(body, str) else bytes(body).decode()
    return body
