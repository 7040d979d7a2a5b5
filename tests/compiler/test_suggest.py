"""compile suggests to mark what of an init comes before its first read of the event; the changed function serves every event."""

import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Chain

from tidalctl.compiler.suggest import suggestion
from tidalctl.function.init_mark import Init
from tidalctl.lineage.tape import Tape
from tidalctl.tracer.init.call import record_init

APP = """
import torch
import tidalctl


def build(size):
    torch.manual_seed(0)
    return torch.nn.Linear(size, size)


@tidalctl.init
@torch.no_grad()
def load(event):
    '''Builds the model.'''
    size = 4
    model = build(size).eval()
    words = ["a", "b"]

    scale = event["scale"]
    model.weight *= scale
    return {"model": model, "words": words}


def handler(event, context):
    state = load(event)
    with torch.no_grad():
        return [state["words"], state["model"](torch.ones(4)).tolist()]
"""
CHANGE = """\
@tidalctl.init(static=True)
@torch.no_grad()
def load_base():
    size = 4
    model = build(size).eval()
    words = ["a", "b"]
    return model, words

@torch.no_grad()
def load(event):  # no longer marked
    model, words = load_base()  # in place of lines 15-17
"""


def suggested(tmp_path: Path, source: str, line: int, name: str = "load") -> str | None:
    (tmp_path / "app.py").write_text(textwrap.dedent(source))
    return suggestion(tmp_path / "app.py", name, line)


def change_of(text: str) -> str:
    """The suggested change alone."""
    return textwrap.dedent(text.partition("\n")[2]) + "\n"


def test_the_lines_before_the_first_read_are_suggested_with_the_users_names(tmp_path: Path) -> None:
    text = suggested(tmp_path, APP, 19)
    assert text is not None and text.startswith("lines 15-17 of app.py read nothing of the event")
    assert change_of(text) == CHANGE


def test_compile_prints_the_change_and_with_it_one_event_serves_all(chain: Callable[..., Chain], tmp_path: Path) -> None:
    made = chain(APP, {"scale": 2.0})
    assert made.manifest["strategy"] == "snapshot" and made.run({"scale": 3.0})["strategy"] == "eager"
    said = made.said()
    assert "\n".join(f"{' ' * 16}{line}".rstrip() for line in CHANGE.splitlines()) in said
    source, mark = (made.project / "app.py").read_text(), "@tidalctl.init\n@torch.no_grad()\ndef load(event):\n"
    assert mark in source
    begin, end = source.index(mark), source.index("    scale = event")
    (made.project / "app.py").write_text(source[:begin] + CHANGE + source[end:])
    made.trace.unlink()
    made.trace.with_suffix(".events").unlink()
    shutil.rmtree(made.bundle)
    made.make()
    assert made.manifest["strategy"] == "snapshot" and made.manifest["init"] == "app:load_base"
    assert "in place of" not in made.said()
    for scale in (2.0, 5.0):
        report = made.run({"scale": scale})
        assert (report["fallback"], report["output"]) == (None, made.plain({"scale": scale}))


@pytest.mark.parametrize(
    "body",
    [
        "scale = event['s']\n    base = list('a')",  # the first statement reads it
        "base = [1]",  # nothing is called
        "list('a')\n    base = event",  # leaves nothing
        "base = list(other)",  # another argument, which the trace may not tell from the event
        "global base\n    base = list('a')",
        "def base(): return list('a')",
        "if list('a'):\n        return 1\n    base = 1",
        "try:\n        list('a')\n    except ValueError as base:\n        pass",  # no name to return
    ],
)
def test_nothing_is_suggested_where_no_function_of_its_own_could_do_it(tmp_path: Path, body: str) -> None:
    assert suggested(tmp_path, f"def load(event, other=1):\n    {body}\n    return base, event['x']\n", 20) is None


def test_a_source_without_the_function_says_nothing(tmp_path: Path) -> None:
    assert suggested(tmp_path, "def load(:", 9) is None
    assert suggested(tmp_path, "load = 1", 9) is None
    assert suggested(tmp_path, "class Model:\n    def load(self, event):\n        base = list('a')\n", 9, "Model.load") is None
    assert suggestion(tmp_path / "gone.py", "load", 9) is None


def test_imports_stay_where_they_are_needed_and_a_taken_name_is_not_given_again(tmp_path: Path) -> None:
    text = suggested(
        tmp_path,
        """
        from models import load_base
        def load(event):
            import math
            from os import path
            base = load_base(path.join("a", "b"))
            return base, math.sqrt(event["x"])
        """,
        7,
    )
    assert text is not None
    assert change_of(text) == (
        "@tidalctl.init(static=True)\ndef load_static():\n    import math\n    from os import path\n"
        '    base = load_base(path.join("a", "b"))\n    return base\n\n'
        "def load(event):  # no longer named by --init\n    import math\n    base = load_static()  # in place of lines 4-6\n"
    )


def test_of_many_lines_the_middle_is_left_out(tmp_path: Path) -> None:
    body = "\n".join(f"    step_{number} = list('a')" for number in range(30))
    text = suggested(tmp_path, f"def load(event):\n{body}\n    return step_0, step_29, event['x']\n", 32)
    assert text is not None
    assert text.startswith("lines 2-31 of app.py") and "step_29 = list" in text and "step_15" not in text and "..." in text


def first_line_of(load: Callable[..., Any], event: dict[str, Any]) -> int | None:
    line = record_init(Init(load, False), (event,), {}, event, Tape(0)).call.first_event_line
    return None if line is None else line - load.__code__.co_firstlineno


def test_the_trace_notes_the_line_of_init_that_first_read_the_event() -> None:
    def chosen(event: dict[str, Any]) -> int:
        found: int = event["size"]
        return found

    def by_a_helper(event: dict[str, Any]) -> Any:
        base = torch.ones(2)
        size = chosen(
            event,
        )
        return base * size * event["size"]

    def by_iteration(event: dict[str, Any]) -> Any:
        base = torch.ones(2)
        return base, sorted(event)

    def never(event: dict[str, Any]) -> Any:
        return torch.ones(2)

    assert first_line_of(by_a_helper, {"size": 2}) == 2
    assert first_line_of(by_iteration, {"size": 2}) == 2
    assert first_line_of(torch.no_grad()(never), {"size": 2}) is None
