"""A user's own `compiler.py`, `tracer.py` or `artifacts/` keeps meaning the user's, and is known again by its content."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from conftest import Chain, tidalctl, write_project

from tidalctl.artifacts.trace.file import read_trace
from tidalctl.compiler.code.project_files import changed_since

FILES = {
    "app.py": """
import torch
import compiler
import tidalctl
import tracer
from artifacts.store import KEPT


@tidalctl.init(static=True)
def load(event):
    return {"weight": torch.full((2,), float(compiler.ANSWER)), "store": KEPT}


def handler(event, context):
    import late
    state = load(event)
    return [state["weight"].tolist(), tracer.WORD, state["store"].name, late.WORD]
""",
    "compiler.py": "ANSWER = 42\n",
    "tracer.py": "WORD = 'mine'\n",
    "late.py": "WORD = 'late'\n",
    "artifacts/__init__.py": "",
    "artifacts/store.py": "class Store:\n    name = 'the store'\n\n\nKEPT = Store()\n",
}


def test_modules_named_like_our_rooms_stay_the_users(chain: Callable[..., Chain]) -> None:
    made = chain(FILES)
    expected = [[42.0, 42.0], "mine", "the store", "late"]
    assert made.plain({}) == expected
    report = made.run({})
    assert (report["output"], report["strategy"]) == (expected, "snapshot")
    shipped = {name for name in json.loads((made.bundle / "manifest.json").read_bytes())["files"] if name.startswith("code/")}
    assert shipped == {f"code/{name}" for name in FILES}


READS = """
import os
import pathlib
import helper

here = pathlib.Path(__file__).parent

def handler(event, context):
    with open(here / "log.txt", "a") as log:
        log.write("called")
    (here / "new.txt").write_text("new")
    os.replace(here / "new.txt", here / "count.txt")
    return [(here / name).read_text() for name in ("data.txt", "log.txt", "count.txt")][0]
"""


def test_modules_and_data_of_the_project_are_known_again_by_their_content_but_what_it_writes_itself(tmp_path: Path) -> None:
    write_project(tmp_path, {"app.py": READS, "helper.py": "", "data.txt": "data", "count.txt": "", "log.txt": ""})
    tidalctl("trace", "app.py", "--event", "{}", cwd=tmp_path).ok()
    traced = read_trace(tmp_path / "app.trace")
    for name in ("data.txt", "helper.py"):
        (tmp_path / name).touch()  # another time alone is no change
    (tmp_path / "log.txt").write_text("other")
    (tmp_path / "count.txt").write_text("other")
    assert changed_since(traced) is None
    for name, text in (("data.txt", "data"), ("helper.py", ""), ("app.py", READS)):
        (tmp_path / name).write_text(text + " # other")
        assert changed_since(traced) == name
        (tmp_path / name).write_text(text)


def test_a_source_that_changed_between_trace_and_compile_is_told(decoder: Chain, tmp_path: Path) -> None:
    source = decoder.project / "app.py"
    kept, status = source.read_bytes(), source.stat()
    try:
        source.write_bytes(kept + b"\n")
        done = tidalctl("compile", decoder.trace, "-o", tmp_path / "new.bundle", cwd=tmp_path)
        done.one_error("app.py has changed since the trace", f"trace again: tidalctl trace {source}:handler")
        assert list(tmp_path.iterdir()) == []
    finally:
        source.write_bytes(kept)
        os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
