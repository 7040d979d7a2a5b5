"""A cog predictor: a class with `setup` and `predict`. The event's fields are the arguments of `predict`."""

import ast
import functools
import inspect
import typing
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from tidalctl.function.shapes import class_of


def find(tree: ast.Module, name: str) -> str | None:
    return class_of(tree, name, "BasePredictor", "setup", "predict")


def init(module: str, name: str) -> str:
    return f"{module}:{name}.setup"


def handler(module: Any, name: str) -> Callable[[Any, Any], Any]:
    @functools.cache
    def predictor() -> Any:
        made = getattr(module, name)()
        made.setup()
        return made

    def handle(event: Any, context: Any) -> Any:
        predict = predictor().predict
        return predict(**_arguments(predict, event))

    return handle


def _arguments(predict: Callable[..., Any], event: dict[str, Any]) -> dict[str, Any]:
    """Return the event's fields, with the defaults that `Input(default=…)` declares, and paths as such."""
    try:
        hints = typing.get_type_hints(predict)
    except (NameError, TypeError):  # an annotation that Python itself never evaluates
        hints = {}
    found = {name: _as_path(hints.get(name), value) for name, value in event.items()}
    for name, parameter in inspect.signature(predict).parameters.items():
        if name not in found and hasattr(parameter.default, "default"):
            found[name] = parameter.default.default
    return found


def _as_path(hint: Any, value: Any) -> Any:
    """Return a text as the path that an annotation means: `Path`, `Path | None`, `list[Path]`."""
    if isinstance(value, list):
        return [_as_path(hint, one) for one in value]
    kinds = [kind for kind in (hint, *typing.get_args(hint)) if isinstance(kind, type) and issubclass(kind, PurePath)]
    return kinds[0](value) if kinds and isinstance(value, str) else value
