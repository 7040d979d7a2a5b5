"""Small modules as hypothesis draws them: states at import, and what functions, methods and threads load, are the plain function's."""

import contextlib
import importlib
import io
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from many_examples import MANY
from small_bench import assert_most_restored, verdicts_on
from small_modules import HEAD, small_modules, statements

from tidalctl.artifacts.state.skeleton import SkeletonUnpickler
from tidalctl.compiler.side_effects.effects import EffectsWatch
from tidalctl.compiler.snapshot.writer import NotStored, write_skeleton
from tidalctl.function.init_mark import Init, answer_inits_with
from tidalctl.function.source_marks import MarkingFinder
from tidalctl.runtime.process.timeline import Timeline
from tidalctl.runtime.restore import settle


@pytest.mark.parametrize("count", [2, pytest.param(300, marks=[pytest.mark.slow, pytest.mark.timeout(4 * 3600)])])
def test_bundles_of_small_modules_answer_as_the_plain_function_does(tmp_path: Path, count: int) -> None:
    assert_most_restored(verdicts_on(tmp_path, small_modules(), count))


PLACES = st.tuples(st.integers(0, 9), st.integers(0, 9))


class Answering:
    """A module of drawn statements in this process, some of which are init: run once, stored, and restored in a second import."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.kept: dict[str, Any] = {}
        self.cause: Any = None

    def store(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Answer init by itself, and store what it gives."""
        with EffectsWatch(str(self._folder), mark) as watch:
            state = mark.function(*arguments, **keywords)
        self.cause = watch.cause(mark.name)
        if self.cause is None:
            try:
                if watch.copied(state):
                    self.cause = "copied"
                    return state
                effects = watch.effects({})
                pickler, _ = write_skeleton(self._folder / "skeleton.pickle", state, effects, {}, str(self._folder))
                self.kept = {name: storage.clone() for name, storage in pickler.storages.items()}
            except NotStored as refused:
                self.cause = refused.reason
        return state

    def restore(self, mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Answer it as a start would."""
        assert mark.statements is not None
        mark.statements.define()
        data = (self._folder / "skeleton.pickle").read_bytes()
        skeleton = SkeletonUnpickler(io.BytesIO(data), self.kept.__getitem__, None, str(self._folder)).load()
        return settle(skeleton, Timeline(0, 0))


@contextlib.contextmanager
def imported(folder: Path, init: str, provider: Any) -> Iterator[Any]:
    """The module `drawn`, with statements of it answered by a provider (None: plainly)."""
    before = answer_inits_with(provider)
    try:
        with MarkingFinder([f"drawn:{init}"], static=True) if provider is not None else contextlib.nullcontext():
            yield importlib.import_module("drawn")
    finally:
        answer_inits_with(before)
        sys.modules.pop("drawn", None)


@pytest.mark.parametrize("count", [60, MANY])
def test_statements_that_are_answered_leave_a_module_as_it_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for number in range(10):
        (tmp_path / f"f{number}.json").write_text(f'"file {number}"')
    became: Counter[str] = Counter()

    def check(drawn: tuple[tuple[list[str], list[str]], tuple[int, int]]) -> None:
        (parts, said), places = drawn
        first, last = sorted(place % len(parts) for place in places)
        text, lines = HEAD, []
        for part in parts:
            text += "\n"
            begin = text.count("\n") + 1
            text += f"{part}\n"
            lines.append((begin, text.count("\n")))
        text += "\n\ndef handler():\n    return [" + ", ".join(said) + "]\n"
        (tmp_path / "drawn.py").write_text(text)
        importlib.invalidate_caches()
        init, module = f"{lines[first][0]}-{lines[last][1]}", Answering(tmp_path)
        with imported(tmp_path, init, None) as plain:
            expected = plain.handler()
        with imported(tmp_path, init, module.store) as stored:
            assert stored.handler() == expected, f"run, {init}:\n{text}"
        became["stored" if module.cause is None else getattr(module.cause, "code", str(module.cause))] += 1
        if module.cause is None:
            with imported(tmp_path, init, module.restore) as restored:
                assert restored.handler() == expected, f"restored, {init}:\n{text}"

    wanted = settings(max_examples=count, deadline=None, phases=[Phase.generate], database=None)
    wanted(given(st.tuples(statements(64), PLACES))(check))()
    assert became["stored"] > count // 3, became


# What stands above the statements that are init, these, and what the handler says: each was restored wrongly once.
HARD = {
    "a locked registry with slots": (
        "class Registry:\n    __slots__ = ('lock', 'items')\n    def __init__(self):\n"
        "        self.lock, self.items = threading.Lock(), {}\nREGISTRY = Registry()",
        "w = torch.ones(8)\nREGISTRY.items['size'] = 8",
        "REGISTRY.items",
    ),
    "an attribute of a dict with a lock": (
        "class Registry(dict):\n    pass\nREGISTRY = Registry()\nREGISTRY.lock, REGISTRY.default = threading.Lock(), None",
        "w = torch.ones(8)\nREGISTRY.default = 'base'",
        "REGISTRY.default",
    ),
    "a class that a function has made": (
        "def make():\n    class Stage: size = None\n    return Stage\nStage = make()",
        "w = torch.ones(8)\nStage.size = 8",
        "Stage.size",
    ),
    "an object that a closure holds": (
        "class Box: value = None\nclass App:\n    def __init__(self): self.box = Box()\n    def reader(self):\n"
        "        box = self.box\n        return lambda: box.value\napp = App()\nread = app.reader()\n",
        "w = torch.ones(8)\napp.box.value = w",
        "[read() is None, app.box.value.tolist()]",
    ),
    "a default that a statement has made": ("SCALE = 1.0", "SCALE = 2.0\ndef f(x=SCALE): return x", "f()"),
    "a body that draws": ("", "torch.manual_seed(3)\nclass Noise: table = torch.rand(2)", "Noise.table.tolist()"),
    "a dtype that a default has": (
        "",
        "torch.set_default_dtype(torch.float64)\ndef f(x=torch.ones(2)): return x\ntorch.set_default_dtype(torch.float32)",
        "str(f().dtype)",
    ),
    "a variable that an import reads": (
        "",
        "os.environ['SMALL_MODE'] = 'fast'\nfrom reads_mode import MODE",
        "MODE",
    ),
    "a route": (
        "routes = {}\ndef route(name):\n    def add(f):\n        routes[name] = f\n        return f\n    return add",
        "w = torch.ones(8)\n@route('a')\ndef answer(): return w.sum().item()",
        "[routes['a'](), routes['a'] is answer]",
    ),
}


@pytest.mark.parametrize("kind", HARD)
def test_what_was_restored_wrongly_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("SMALL_MODE", raising=False)
    before, middle, said = HARD[kind]
    (tmp_path / "reads_mode.py").write_text("import os\nMODE = os.environ.get('SMALL_MODE', 'slow')\n")
    text = f"{HEAD}{before}\n"
    init = f"{text.count(chr(10)) + 1}-{text.count(chr(10)) + middle.count(chr(10)) + 1}"
    (tmp_path / "drawn.py").write_text(f"{text}{middle}\n\n\ndef handler():\n    return {said}\n")
    importlib.invalidate_caches()
    module = Answering(tmp_path)
    with imported(tmp_path, init, None) as plain:
        expected = plain.handler()
    sys.modules.pop("reads_mode", None)
    monkeypatch.delenv("SMALL_MODE", raising=False)
    with imported(tmp_path, init, module.store) as stored:
        assert stored.handler() == expected
    sys.modules.pop("reads_mode", None)
    monkeypatch.delenv("SMALL_MODE", raising=False)
    if module.cause is None:
        with imported(tmp_path, init, module.restore) as restored:
            assert restored.handler() == expected
