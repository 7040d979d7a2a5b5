"""The source of a function is its loader's, and is only taken where it is proved to be what runs; and the names in statements."""

import ast
import importlib
import itertools
import linecache
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidalctl.function.source import Source, SourceUnknown, mentions, names_bound, names_read, unwrap

Maker = Callable[[str], Any]
_count = itertools.count()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Maker]:
    """A function that writes a module and imports it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names: list[str] = []

    def module(source: str) -> Any:
        names.append(f"source_app_{next(_count)}")
        (tmp_path / f"{names[-1]}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        importlib.invalidate_caches()
        return importlib.import_module(names[-1])

    yield module
    for name in names:
        sys.modules.pop(name, None)


def why(function: Any) -> str:
    with pytest.raises(SourceUnknown) as caught:
        Source(unwrap(function)[0])
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def load(event):\n    x = list('a')\n    yield x", "a generator"),
        ("async def load(event):\n    return list('a')", "a coroutine"),
        ("load = lambda event: list('a')", "<lambda>"),
        ("import functools\n@functools.cache\ndef load(event):\n    return 1", "_lru_cache_wrapper"),
        ("import functools\ndef f(a, b): return 1\nload = functools.partial(f, 1)", "partial"),
        ("class C:\n    def load(self, event): pass\nload = C.load", "C.load is not a function at the top"),
        ("class C:\n    def load(self, event): pass\nload = C().load", "method"),
        ("class load:\n    def __init__(self, event): pass", "type"),
        ("def f():\n    def load(event): pass\n    return load\nload = f()", "not a function at the top"),
        ("def f(y):\n    def load(event): return y\n    return load\nload = f(1)", "closes over y"),
        (
            "import functools\ndef w(f):\n    @functools.wraps(f)\n    def g(e): return f(e)\n    return g\n@w\ndef load(event): pass",
            "wrapped by w.<locals>.g",
        ),
        ("import torch\n@torch.enable_grad()\ndef load(event): pass", "wrapped by"),
        ("import torch\n@torch.inference_mode(False)\ndef load(event): pass", "inference_mode(False)"),
        ('exec("def load(event): pass")', "its source is not what runs"),
    ],
)
def test_what_is_no_plain_function_says_why(make: Maker, source: str, reason: str) -> None:
    assert reason in why(make(source + "\n").load)


def test_the_source_is_the_loaders_and_has_to_be_what_runs(make: Maker) -> None:
    source = "def load(event):\n    base = list('a')\n    return base, event['x']\n"
    module = make(source)
    for _ in range(50):  # code that has run hot is specialised in place
        module.load({"x": 1})
    assert Source(module.load).node.lineno == 1
    Path(module.__file__).write_text(source.replace("'a'", "'b'"))
    assert why(module.load) == "its source is not what runs"
    Path(module.__file__).unlink()
    linecache.clearcache()
    assert why(module.load) == "its source is not what runs"

    class Loader:
        def get_source(self, name: str) -> str:
            assert name == module.__name__
            return source

    module.__loader__ = Loader()
    assert ast.unparse(Source(module.load).node) == ast.unparse(ast.parse(source))


def test_of_two_functions_of_a_name_the_one_that_is_bound_is_found(make: Maker) -> None:
    module = make("""
        from __future__ import annotations
        def load(event: no_such_name):
            return list("old")
        first = load
        def load(event):
            return list("new")
    """)
    assert (Source(module.first).node.lineno, Source(module.load).node.lineno) == (3, 6)


def test_torchs_gradient_modes_are_seen_through_in_their_order(make: Maker) -> None:
    import torch

    module = make("""
        import torch
        @torch.inference_mode()
        @torch.no_grad()
        def load(event):
            return event
    """)
    function, modes = unwrap(module.load)
    assert modes == [torch.inference_mode, torch.no_grad]
    assert Source(function).node.name == "load"


def test_names_are_those_of_the_statements_own_function() -> None:
    body = ast.parse(
        textwrap.dedent("""
        import os.path as p, math
        a, (b, *c) = [x for x in d]
        with e as f:
            g += 1
        def h(i=j): k = l
        del m
        (n := o)
        match q:
            case {"r": s, **t}: pass
        """)
    ).body
    assert names_bound(body) == {"p", "math", "a", "b", "c", "f", "g", "h", "m", "n", "s", "t"}
    assert names_read(body) == {"x", "d", "e", "g", "j", "l", "m", "o", "q"}
    assert {"i", "k", "l", "x"} <= mentions(body)
