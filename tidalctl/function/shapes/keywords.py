"""Any callable: the event's fields are its keyword arguments."""

import ast
from collections.abc import Callable
from typing import Any


def find(tree: ast.Module, name: str) -> str | None:
    return name or "handler"


def init(module: str, name: str) -> str:
    return ""


def handler(module: Any, name: str) -> Callable[[Any, Any], Any]:
    function = module
    for part in name.split("."):
        function = getattr(function, part)

    def handle(event: Any, context: Any) -> Any:
        return function(**event)

    return handle
