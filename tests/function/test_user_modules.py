"""A project's modules and data: its own `compiler.py` or `artifacts/` stays the user's, and both are known again by their content."""

import os
from collections.abc import Callable
from pathlib import Path

from conftest import Chain, tidalctl, write_project

from tidalctl.artifacts.trace.file import read_trace
from tidalctl.compiler.code.project_files import changed_since

FILES = {
    "app.py": """
from pathlib import Path

import torch
import compiler
import tidalctl
import tracer
from artifacts.store import KEPT


class Holder:
    def __init__(self, weight):
        self.weight = weight


@tidalctl.init(static=True)
def load(event=None):
    return {"held": Holder(torch.full((2,), float(compiler.ANSWER))), "store": KEPT}


STATE = load()


def handler(event, context):
    import late
    styles = {path.stem: path for path in (Path(__file__).parent / "styles").iterdir()}
    texts = styles[event["style"]], Path(event["folder"], "given.txt")
    held = STATE["held"]
    words = held.weight.tolist(), isinstance(held, Holder), tracer.WORD, STATE["store"].name, late.WORD
    return [*words, *(path.read_text() for path in texts)]
""",
    "compiler.py": "ANSWER = 42\n",
    "tracer.py": "WORD = 'mine'\n",
    "late.py": "WORD = 'late'\n",
    "artifacts/__init__.py": "",
    "artifacts/store.py": "class Store:\n    name = 'the store'\n\n\nKEPT = Store()\n",
    "styles/a.txt": "a",
    "styles/b.txt": "b",
}


def test_modules_named_like_our_rooms_stay_the_users_and_an_init_that_is_called_while_its_module_is_imported_is_answered(
    chain: Callable[..., Chain], tmp_path: Path
) -> None:
    """A file whose absolute path an event gives is not shipped, and all of a folder that was listed is."""
    folder = write_project(tmp_path / "project" / "requests", {"given.txt": "secret"})
    made = chain(FILES, {"style": "a", "folder": str(folder)})
    event = {"style": "b", "folder": str(folder)}
    report = made.run(event)
    assert (report["output"], report["strategy"], report["fallback"]) == (made.plain(event), "snapshot", None)
    assert report["output"] == [[42.0, 42.0], True, "mine", "the store", "late", "b", "secret"]
    shipped = {name for name in made.manifest["files"] if name.startswith("code/")}
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
