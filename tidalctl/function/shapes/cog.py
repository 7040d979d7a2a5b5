"""A cog predictor: a class with `setup` and `predict`. The event's fields are the arguments of `predict`."""

import ast
import inspect
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from tidalctl.function.shapes import class_of


def find(tree: ast.Module, name: str) -> str | None:
    return class_of(tree, name, "BasePredictor", "setup", "predict")


def init(module: str, name: str) -> str:
    return f"{module}:{name}.setup"


def handler(module: Any, name: str) -> Callable[[Any, Any], Any]:
    made: list[Any] = []

    def handle(event: Any, context: Any) -> Any:
        if not made:
            predictor = getattr(module, name)()
            predictor.setup()
            made.append(predictor)
        return made[0].predict(**_arguments(made[0].predict, event))

    return handle


def _arguments(predict: Callable[..., Any], event: dict[str, Any]) -> dict[str, Any]:
    """Return the event's fields, with the defaults that `Input(default=…)` declares, and paths as such."""
    found = dict(event)
    for name, parameter in inspect.signature(predict).parameters.items():
        if name not in found and hasattr(parameter.default, "default"):
            found[name] = parameter.default.default
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, PurePath) and name in event:
            found[name] = parameter.annotation(event[name])
    return found
