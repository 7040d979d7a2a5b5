"""`--init` finds the code that runs: in the source, before the module runs, whoever keeps a reference to the function."""

import importlib
import inspect
import sys
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.records import Function
from tidalctl.function.init_mark import Init, answer_inits_with
from tidalctl.function.target import import_handler

Calls = list[str]


@pytest.fixture
def calls() -> Iterator[Calls]:
    """The inits that are called, by name, each answered by itself."""
    found: Calls = []

    def answer(mark: Init, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        found.append(mark.name.rpartition(":")[2] + (" static" if mark.static else ""))
        return mark.function(*arguments, **keywords)

    answer_inits_with(answer)
    yield found
    answer_inits_with(None)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that writes modules, by name, and imports a handler of the one called `app` with an init named."""
    names: list[str] = []
    monkeypatch.syspath_prepend(tmp_path)

    def written(init: str, static: bool = False, **sources: str) -> Any:
        for name, source in sources.items():
            path = tmp_path / f"{name.replace('_from_', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(source))
            names.append(name.replace("_from_", "."))
        importlib.invalidate_caches()
        return import_handler(
            Function(module="app", handler="handler", source="app.py", inits=(init,) if init else (), static=static)
        )

    yield written
    for module in {part for name in names for part in (name, name.partition(".")[0])}:
        sys.modules.pop(module, None)


HANDLER = "\n\ndef handler(event, context):\n    return "
FORMS = {
    "a function": ("app:load", "def load():\n    return 1" + HANDLER + "load()", "load"),
    "in a branch": ("app:load", "if True:\n    def load():\n        return 1" + HANDLER + "load()", "load"),
    "a cached function": (
        "app:load",
        "from functools import lru_cache\n\n@lru_cache(maxsize=1)\ndef load():\n    return 1" + HANDLER + "load() and load()",
        "load",
    ),
    "a partial": ("app:load", "from functools import partial\nload = partial(int, 1)" + HANDLER + "load()", "load"),
    "kept from before": ("app:load", "def load():\n    return 1\n\nkept = [load]" + HANDLER + "kept[0]()", "load"),
    "called at import": ("app:load", "def load():\n    return 1\n\nstate = load()" + HANDLER + "state", "load"),
    "in a thread at import": (
        "app:load",
        "from concurrent.futures import ThreadPoolExecutor\n\ndef load():\n    return 1\n\n"
        "future = ThreadPoolExecutor(1).submit(load)" + HANDLER + "future.result()",
        "load",
    ),
    "a method": (
        "app:Net.setup",
        "class Net:\n    def setup(self):\n        self.one = 1\n\nnet = Net()" + HANDLER + "net.setup() or net.one",
        "Net.setup",
    ),
    "an inherited method": (
        "app:Base.setup",
        "class Base:\n    def setup(self):\n        self.one = 1\n\nclass Net(Base):\n    pass\n\nnet = Net()"
        + HANDLER
        + "net.setup() or net.one",
        "Base.setup",
    ),
    "a static method": (
        "app:Net.load",
        "class Net:\n    @staticmethod\n    def load():\n        return 1" + HANDLER + "Net.load()",
        "Net.load",
    ),
    "a class method": (
        "app:Net.load",
        "class Net:\n    @classmethod\n    def load(cls):\n        cls.one = 1\n        return cls.one"
        + HANDLER
        + "Net.load()",
        "Net.load",
    ),
    "a class": ("app:Net", "class Net:\n    def __init__(self):\n        self.one = 1" + HANDLER + "Net().one", "Net.__init__"),
    "a marked class": (
        "",
        "import tidalctl\n\n@tidalctl.init\nclass Net:\n    def __init__(self):\n        self.one = 1" + HANDLER + "Net().one",
        "Net.__init__",
    ),
    "a marked class method": (
        "",
        "import tidalctl\n\nclass Net:\n    @tidalctl.init\n    @classmethod\n    def load(cls):\n        return 1"
        + HANDLER
        + "Net.load()",
        "Net.load",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_init_in_any_form_is_found(form: str, write: Any, calls: Calls) -> None:
    init, source, name = FORMS[form]
    assert write(init, app=source)({}, None) == 1
    assert calls == [name]


def test_an_init_is_found_where_it_is_defined(write: Any, calls: Calls) -> None:
    source = "from package.models import build as load\n\nstate = load()" + HANDLER + "state"
    handler = write("app:load", app=source, package_from___init__="", package_from_models="def build():\n    return 1")
    assert handler({}, None) == 1
    assert calls == ["build"]


def test_static_is_the_marks(write: Any, calls: Calls) -> None:
    write("app:load", static=True, app="import tidalctl\n\n@tidalctl.init\ndef load():\n    return 1" + HANDLER + "load()")(
        {}, None
    )
    assert calls == ["load static"]


def test_lines_and_sources_are_as_ever(write: Any, calls: Calls) -> None:
    body = "    def load(self):\n        raise ValueError\n"
    handler = write("app:Net.load", app=f"class Net:\n\n{body}" + HANDLER + "Net().load()")
    with pytest.raises(ValueError) as raised:
        handler({}, None)
    assert traceback.extract_tb(raised.tb)[-1].lineno == 4
    assert inspect.getsource(sys.modules["app"].Net.load) == body
    assert "get_code" not in vars(sys.modules["app"].__spec__.loader)


def test_what_is_not_there_is_told_with_near_names(write: Any) -> None:
    with pytest.raises(TidalError, match="no --init app:laod") as raised:
        write("app:laod", app="def load():\n    return 1" + HANDLER + "1")
    assert "did you mean: load" in str(raised.value.hint)
    assert not any(type(finder).__name__ == "MarkingFinder" for finder in sys.meta_path)
