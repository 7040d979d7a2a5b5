"""Where it can't be seen that a split would be exact, there is none, and it says why; and the source that this is seen in."""

import linecache
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefix_cases import Maker, making, same, why

from tidalctl.prefix import split_init


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    with making(tmp_path_factory.mktemp("apps")) as maker:
        yield maker


# --- refusals -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def load(event):\n    return list(event)", "its first statement reads the event"),
        (
            "def load(event):\n    'text'\n    import os\n    x = 1\n    return x, event",
            "nothing that works stands before the cut",
        ),
        ("def load(event):\n    x = list('a')\n    yield x", "a generator"),
        ("async def load(event):\n    x = list('a')\n    return x", "a coroutine"),
        ("load = lambda event: list('a')", "<lambda>"),
        ("import functools\n@functools.cache\ndef load(event):\n    x = list('a')\n    return x", "_lru_cache_wrapper"),
        ("import functools\ndef f(a, b): return 1\nload = functools.partial(f, 1)", "partial"),
        ("class C:\n    def load(self, event):\n        x = list('a')\nload = C.load", "C.load is not a function at the top"),
        ("class C:\n    def load(self, event):\n        x = list('a')\nload = C().load", "method"),
        ("class load:\n    def __init__(self, event): pass", "type"),
        ("def f():\n    def load(event):\n        return list('a')\n    return load\nload = f()", "not a function at the top"),
        ("def f(y):\n    def load(event):\n        return y\n    return load\nload = f(1)", "closes over y"),
        (
            "import functools\ndef w(f):\n    @functools.wraps(f)\n    def g(e): return f(e)\n    return g\n"
            "@w\ndef load(event):\n    x = list('a')\n    return x",
            "wrapped by w.<locals>.g",
        ),
        ("import torch\n@torch.enable_grad()\ndef load(event):\n    x = list('a')\n    return x", "wrapped by"),
        (
            "import torch\n@torch.inference_mode(False)\ndef load(event):\n    x = list('a')\n    return x",
            "inference_mode(False)",
        ),
        ("exec(\"def load(event):\\n    x = list('a')\\n    return x\")", "its source is not what runs"),
    ],
)
def test_what_can_not_be_split_says_why(make: Maker, source: str, reason: str) -> None:
    assert reason in why(make(source + "\n"))


@pytest.mark.parametrize(
    "use",
    [
        *(
            "locals()",
            "vars()",
            "dir()",
            "eval('1')",
            "exec('1')",
            "globals()",
            "sys._getframe()",
            "inspect.stack()",
            "__class__",
        ),
        *("breakpoint", "(lambda: locals())()", "__import__('inspect').currentframe()"),
    ],
)
def test_a_function_that_may_look_at_itself_is_not_split(make: Maker, use: str) -> None:
    module = make(f"import sys, inspect\ndef load(event):\n    x = list('a')\n    return x, event, {use}\n")
    assert "may look at the function itself" in why(module)
    module = make(
        "import sys\ndef load(event):\n    from sys import _getframe as g\n    x = list('a')\n    return x, event, g\n"
    )
    assert "_getframe" in why(module)


def test_a_model_that_is_put_in_eval_is_split(make: Maker) -> None:
    module = make("""
        class Model:
            def eval(self): return self
            def __eq__(self, other): return True
        def load(event):
            model = Model().eval()
            return model, event
    """)
    assert same(module, 1).carried == ("model",)


# --- the source ---------------------------------------------------------------------------------------------------------------------


def test_the_source_is_the_loaders_and_has_to_be_what_runs(make: Maker) -> None:
    source = "def load(event):\n    base = list('a')\n    return base, event['x']\n"
    module = make(source)
    for _ in range(50):  # code that has run hot is specialised in place
        module.load({"x": 1})
    assert split_init(module.load).lines == (2, 2)
    Path(module.__file__).write_text(source.replace("'a'", "'b'"))
    assert why(module) == "its source is not what runs"
    Path(module.__file__).unlink()
    linecache.clearcache()
    assert why(module) == "its source is not what runs"

    class Loader:
        def get_source(self, name: str) -> str:
            assert name == module.__name__
            return source

    module.__loader__ = Loader()
    split = split_init(module.load)
    assert split.suffix(split.prefix(), {"x": 1}) == (["a"], 1)


def test_the_future_flags_of_the_module_hold_in_both_parts(make: Maker) -> None:
    module = make("""
        from __future__ import annotations
        def load(event):
            base = list("a")
            def inner(x: no_such_name) -> nor_this: return base
            def other(x: no_such_name): return event
            return inner(1), other(1), inner.__annotations__, other.__annotations__
    """)
    assert same(module, 1).carried == ("base",)


def test_one_of_two_functions_of_a_name_is_split(make: Maker) -> None:
    module = make("""
        def load(event):
            base = list("old")
            return base
        first = load
        def load(event):
            base = list("new")
            return base, event
        load = load if load else None
    """)
    assert same(module, 1).lines == (7, 7)


def test_names_of_ours_never_meet_the_users(make: Maker) -> None:
    module = make("""
        def load(_tidalctl, carried=1):
            _tidalctl_ = list("a")
            return _tidalctl, _tidalctl_, carried
    """)
    assert same(module, 1).carried == ("_tidalctl_",)
