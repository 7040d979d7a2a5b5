"""What a function found out about its files at home, it finds out in a copy of what is shipped, or is told: on random files, in this
process.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from many_examples import MANY, PHASES, on_examples, trace_of

from tidalctl.compiler.code.shipment import ShippingRules, copy_shipment, plan_shipment
from tidalctl.tracer.process.asked_paths import PathRecorder
from tidalctl.tracer.process.clock import TraceClock
from tidalctl.tracer.process.files import FileRecorder

NAMES = ("a.txt", "b.json", "token", ".env", "in", "deep", "a.key", ".hidden", "ä b")
TREES = st.dictionaries(
    st.lists(st.sampled_from([name for name in NAMES if name[0] != "."]), min_size=1, max_size=3).map("/".join)
    | st.sampled_from([".hidden", "in/.hidden", ".env", "deep/.env"]),  # no folders: such ones are not shipped
    st.sampled_from(["", "text", "-----BEGIN PRIVATE KEY-----", "-> a.txt", "-> in", "-> ../beside.txt"]),
    max_size=7,
)
FOLDERS = st.lists(st.sampled_from(["in", "deep", "in/empty"]), max_size=2)


def read_descriptor(path: str) -> bytes:
    number = os.open(path, os.O_RDONLY)
    try:
        return os.read(number, 99)
    finally:
        os.close(number)


QUESTIONS = {
    "open": lambda path: Path(path).read_text(),
    "descriptor": read_descriptor,
    "exists": os.path.exists,
    "isfile": os.path.isfile,
    "is_dir": lambda path: Path(path).is_dir(),
    "size": lambda path: os.path.isfile(path) and os.path.getsize(path),
    "access": lambda path: os.access(path, os.R_OK),
    "list": lambda path: sorted(os.listdir(path)),
    "scan": lambda path: sorted((entry.name, entry.is_file(), entry.is_dir()) for entry in os.scandir(path)),
    "glob": lambda path: sorted(found.name for found in Path(path).glob("*.txt")),
    "deep": lambda path: sorted(found.relative_to(path).as_posix() for found in Path(path).rglob("*")),
    "walk": lambda path: sorted((os.path.relpath(at, path), *sorted(names)) for at, _, names in os.walk(path)),
    "walk up": lambda path: sorted(name for _, _, names in os.walk(path, topdown=False) for name in names),
}
ASKS = st.lists(
    st.tuples(
        st.sampled_from(sorted(QUESTIONS)),
        st.lists(st.sampled_from((*NAMES, "none")), max_size=3).map("/".join),
        PHASES,
    ),
    min_size=1,
    max_size=4,
)


def make_tree(root: Path, tree: dict[str, str], folders: list[str]) -> None:
    root.mkdir()
    (root / "app.py").touch()
    (root.parent / "beside.txt").write_text("beside")
    for name, content in tree.items():
        path = root / name
        with contextlib.suppress(OSError):  # a file where a folder should be
            path.parent.mkdir(parents=True, exist_ok=True)
            if content.startswith("-> "):
                path.symlink_to(content[3:])
            else:
                path.write_text(content)
    for path in [path for path in root.rglob("*") if path.is_symlink() and not path.is_file()]:
        path.unlink()  # one to a folder is a folder in the copy, and one that leads nowhere is not shipped
    for name in folders:
        with contextlib.suppress(OSError):
            (root / name).mkdir(parents=True)


def answer(root: Path, kind: str, name: str) -> Any:
    """What a question about a path of the project gives, or that it raises."""
    path = os.path.join(root, name)
    try:
        return QUESTIONS[kind](path)
    except OSError:
        return "an error"


@pytest.fixture(scope="module")
def recorders() -> Iterator[tuple[TraceClock, FileRecorder]]:
    """One for all examples, since an audit hook stays for ever; each example forgets what the one before has opened."""
    clock = TraceClock()
    files = FileRecorder(clock, "/")
    yield clock, files
    files.stop()


@pytest.mark.parametrize("count", [250, MANY])
def test_what_a_function_asks_of_its_files_is_answered_alike_by_what_is_shipped(
    recorders: tuple[TraceClock, FileRecorder], count: int
) -> None:
    clock, files = recorders
    paths = PathRecorder(clock, "")
    told = 0

    def check(example: tuple[dict[str, str], list[str], list[tuple[str, str, str]]]) -> None:
        nonlocal told
        tree, folders, asks = example
        with tempfile.TemporaryDirectory(prefix="reads-") as folder:
            root, code = Path(folder, "home"), Path(folder, "elsewhere", "code")
            make_tree(root, tree, folders)
            files._opened.clear()
            files._root = str(root)
            paths._asked.clear()
            paths._root = f"{root}/"
            at_home = []
            with paths:
                for kind, name, phase in asks:
                    with clock.entering(phase):
                        at_home.append(answer(root, kind, name))
            records = [record for record in files.files() if not record.mapped]
            shipment = plan_shipment(trace_of(root, *records, *paths.paths()), ShippingRules())
            code.mkdir(parents=True)
            copy_shipment(shipment, root, code)
            shutil.rmtree(root)
            for (kind, name, phase), wanted in zip(asks, at_home, strict=True):
                found = answer(code, kind, name)
                if found == wanted:
                    continue
                told += 1
                assert shipment.secrets or shipment.warnings, (kind, name, phase, wanted, found)

    on_examples(count, st.tuples(TREES, FOLDERS, ASKS), check)
    assert told < count / 2
