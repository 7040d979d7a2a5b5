"""Who makes the weights of a function that names no init."""

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidalctl.tracer.init.weight_makers import WeightMakers


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that imports a module `made_here` of the given source, and calls its handler, both watched."""
    monkeypatch.syspath_prepend(tmp_path)

    def watched(source: str, **others: str) -> WeightMakers:
        for name, text in {"made_here": source, **others}.items():
            (tmp_path / f"{name}.py").write_text("import torch\n" + textwrap.dedent(text))
        importlib.invalidate_caches()
        makers = WeightMakers(str(tmp_path), "handler")
        with makers.watching():
            module = importlib.import_module("made_here")
            if hasattr(module, "handler"):
                module.handler()
        return makers

    yield watched
    for name in ("made_here", "other_here"):
        sys.modules.pop(name, None)


def test_lines_go_from_the_first_that_makes_a_weight_to_the_last_that_writes_to_one(project: Any) -> None:
    makers = project("""
        small = torch.zeros(4)
        big = torch.zeros(2**18)

        name = "between"
        big[0] = 1
        del name
        print("behind")
        """)
    assert makers.lines() == [("made_here:4-8", 2**20)]


def test_a_seed_before_a_draw_belongs_to_it_and_one_before_zeros_does_not(project: Any) -> None:
    assert project("torch.manual_seed(0)\nx = 1\nbig = torch.rand(2**18)").lines() == [("made_here:2-4", 2**20)]
    sys.modules.pop("made_here")
    assert project("torch.manual_seed(0)\nx = 1\nbig = torch.zeros(2**18)").lines() == [("made_here:4", 2**20)]


def test_what_is_gone_or_small_is_no_weight(project: Any) -> None:
    assert project("torch.zeros(2**18)\nsmall = torch.zeros(2**10)").lines() == []


def test_each_of_several_modules_has_statements_and_the_one_with_the_most_comes_first(project: Any) -> None:
    makers = project("import other_here\nsmall = torch.zeros(2**18)", other_here="x = 1\nbig = torch.zeros(2**20)")
    assert makers.lines() == [("other_here:3", 2**22), ("made_here:3", 2**20)]


def test_a_librarys_pool_works_for_the_statement_that_waits_for_it(project: Any) -> None:
    makers = project("""
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(2) as pool:
            made = list(pool.map(torch.zeros, [2**18, 2**18]))
        """)
    assert makers.lines() == [("made_here:4-5", 2**21)]


FUNCTIONS = {
    "the innermost that makes them all": (
        """
        kept = {}
        def build(): return torch.nn.Linear(512, 1024)
        def get():
            kept["net"] = build()
            return kept["net"]
        def handler(): return get()
        """,
        "build",
    ),
    "not the class of a module, and the one that fills what another has made": (
        """
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(512, 1024)
        def load():
            net = Net()
            torch.nn.init.ones_(net.layer.weight)
            return net
        kept = []
        def handler(): kept.append(load())
        """,
        "load",
    ),
    "a method": (
        """
        class Predictor:
            def setup(self): self.table = torch.zeros(2**20)
        it = Predictor()
        def handler(): it.setup()
        """,
        "Predictor.setup",
    ),
    "what a forward has used, though it is gone": (
        """
        def load(): return torch.nn.Linear(512, 1024)
        def handler(): return load()(torch.ones(512)).sum().item()
        """,
        "load",
    ),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_the_function_is(project: Any, kind: str) -> None:
    source, name = FUNCTIONS[kind]
    frame, nbytes = project(source).function()
    assert (frame.name, nbytes >= 2**20) == (name, True)


def test_no_name_leads_to_what_the_handler_makes_itself(project: Any) -> None:
    frame, nbytes = project("kept = []\ndef handler(): kept.append(torch.zeros(2**20))").function()
    assert (frame, nbytes) == (None, 2**22)
    sys.modules.pop("made_here")
    assert project("def handler(): return 1").function() is None
