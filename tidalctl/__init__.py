"""tidalctl makes LLM functions start fast: trace once, compile a template bundle, run from it.

Importing this costs nothing: no torch, no typer. `init` marks the function that builds the state; `load_bundle` gives from
Python what `tidalctl run` gives from a terminal.
"""

from tidalctl.function.init_mark import init

__version__ = "0.1.0"
__all__ = ["__version__", "init", "load_bundle"]


def __getattr__(name: str) -> object:
    if name == "load_bundle":
        from tidalctl.runtime.load_bundle import load_bundle

        return load_bundle
    raise AttributeError(f"module 'tidalctl' has no attribute {name!r}")
