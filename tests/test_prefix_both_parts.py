"""What both parts of a split init do: imports and nested functions made twice, gradient modes entered again."""

import textwrap
from collections.abc import Iterator

import pytest
import torch
from prefix_cases import Maker, making, same

from tidalctl.prefix import split_init


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    with making(tmp_path_factory.mktemp("apps")) as maker:
        yield maker


# --- what is done in both parts -----------------------------------------------------------------------------------------------------


def test_imports_and_nested_functions_are_made_in_both_parts(make: Maker) -> None:
    module = make("""
        LOG = []
        def load(event):
            import math
            from os import path as p
            factor = list("ab")
            def twice(value, times=2) -> list:
                '''Doubles.'''
                LOG.append(value)
                return factor * times + [math.floor(2.5), value]
            base = twice(0)
            return base, twice(event["x"]), p.join("a", "b"), twice.__qualname__, math.floor(event["x"])
    """)
    split = same(module, {"x": 1}, {"x": 2.5}, {})
    assert split.carried == ("base", "factor")
    assert split.lines == (4, 11)


def test_an_import_in_a_branch_is_carried_since_it_can_not_be_repeated_alone(make: Maker) -> None:
    module = make("""
        def load(event):
            try:
                import no_such_module as fast
            except ImportError:
                import math as fast
            return fast.floor(event["x"])
    """)
    assert same(module, {"x": 1.5}).carried == ("fast",)


@pytest.mark.parametrize(
    "body",
    [
        "@mark\ndef f(): pass",
        "def f(x=list()): pass",
        "def f(x: list()): pass",
        "def f() -> base: pass",
        "class C(Base): pass",
        "class C: x = list()",
        "class C:\n    @property\n    def f(self): pass",
        "class C: pass\nmade = C()",
        "f = 1\nimport math as f",
        "import math\ndel math",
        "def f(): return 1\nkept = [f]",
        "def f(): return f\nkept = f()",
        "def f(): return 1\nf.x = 2",
        "from math import floor\nimport math\nmath.floor = 3",
        "hook = lambda: scale",
        "hook = (scale for _ in base)",
        "def f():\n    nonlocal scale\n    scale = 3",
        "lazy = ((scale := x) for x in base)",
        "with manager:\n    return 1",
        "for _ in base:\n    return 2",
    ],
)
def test_what_could_be_told_from_its_copy_ends_the_prefix(make: Maker, body: str) -> None:
    """Made twice, handed on, or seeing a name change that the suffix binds."""
    module = make(
        "def mark(f): return f\nclass Base: pass\ndef load(event):\n    base = list('a')\n"
        + textwrap.indent(body, "    ")
        + "\n    after = list('b')\n    scale = event\n    return base, scale, after\n"
    )
    assert split_init(module.load).lines[1] < body.count("\n") + 6


def test_functions_that_see_only_what_stays_are_static(make: Maker) -> None:
    module = make("""
        def load(event):
            words = list("abc")
            order = {w: -n for n, w in enumerate(words)}
            ranked = sorted(words, key=lambda w: order[w])
            total = sum(ord(w) for w in words)
            lazy = (order[w] for w in ranked)
            class Empty:
                size = 3
                def method(self): return order
            words = event["words"]
            for w in words:
                ranked.append(w)
            return ranked, total, list(lazy), Empty.size, Empty().method()
    """)
    split = same(module, {"words": ["d"]}, {"words": []})
    assert split.lines == (3, 10)
    assert split.carried == ("lazy", "order", "ranked", "total", "words")


def test_globals_that_the_function_declares_are_the_modules_in_both_parts(make: Maker) -> None:
    module = make("""
        LOG = []
        COUNT = 0
        NAME = None
        def load(event):
            global COUNT
            COUNT += 1
            LOG.append(COUNT)
            global NAME
            NAME = event["x"]
            LOG.append((COUNT, NAME))
            COUNT = 0
            return COUNT
    """)
    split = same(module, {"x": 1}, {"x": 2})
    assert split.carried == ()
    split.suffix(split.prefix(), {"x": "set"})
    assert module.NAME == "set"


# --- gradient modes -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modes", ["torch.no_grad()", "torch.inference_mode()", "torch.no_grad(), torch.inference_mode()"])
def test_a_gradient_mode_is_entered_again_for_the_rest_of_its_block(make: Maker, modes: str) -> None:
    module = make(f"""
        import torch
        def now(): return torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        def load(event):
            before = now()
            with {modes}:
                import math
                base = now()
                x = event["x"]
                more = now()
                inner = now() + tuple(event["y"])
                last = now()
            return before, base, x, more, inner, last, now(), math.floor(1.5)
    """)
    split = same(module, {"x": 1, "y": [2]}, {"x": 1})
    assert (split.lines, split.carried) == ((5, 10), ("base", "before", "more"))


def test_a_block_that_ends_without_a_cut_lets_the_prefix_go_on(make: Maker) -> None:
    module = make("""
        import torch
        def load(event):
            with torch.no_grad():
                x = event["x"]
                base = torch.ones(2).requires_grad_() * 2
            after = [base.requires_grad, torch.is_grad_enabled()]
            return x, after
    """)
    assert same(module, {"x": 1}, {}).lines == (6, 7)


@pytest.mark.parametrize(
    "block",
    [
        "with torch.no_grad() as mode:",
        "with torch.inference_mode(False):",
        "with torch.enable_grad():",
        "with open(__file__):",
        "with (torch.no_grad(), open(__file__)):",
    ],
)
def test_any_other_block_is_not_split(make: Maker, block: str) -> None:
    module = make(f"""
        import torch
        def load(event):
            base = list("a")
            {block}
                more = list("b")
                more.append(event)
            return base, more
    """)
    assert same(module, 1).lines == (4, 4)


def test_a_torch_that_is_not_the_modules_and_a_mode_that_is_set_inside_are_not_split(make: Maker) -> None:
    module = make("""
        def load(event):
            import torch
            base = list("a")
            with torch.no_grad():
                more = list("b")
                more.append(event)
            return base, more
    """)
    assert same(module, 1).lines == (3, 4)
    module = make("""
        import torch
        def load(event):
            base = list("a")
            with torch.no_grad():
                torch.set_grad_enabled(True)
                more = [event, torch.is_grad_enabled()]
            return base, more
    """)
    assert same(module, 1).lines == (4, 4)


def test_torchs_own_decorators_cover_both_parts(make: Maker) -> None:
    module = make("""
        import torch
        def now(): return torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        @torch.inference_mode()
        @torch.no_grad()
        def load(event):
            base = now()
            return base, now(), event["x"]
    """)
    assert same(module, {"x": 1}, {}).carried == ("base",)
    assert split_init(module.load).prefix() == {"base": (False, True)}
    assert torch.is_grad_enabled()
