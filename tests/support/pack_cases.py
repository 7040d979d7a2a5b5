"""A small library, packed as compile packs it, and a fresh process that imports from the pack, without a function or torch."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import Done, python, write_project

from tidalctl.artifacts.bundle.code_pack import head_digest
from tidalctl.artifacts.bundle.manifest import PACK, PROVENANCE
from tidalctl.artifacts.records import Function
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import SCHEMA, Header, Import
from tidalctl.compiler.code.code_pack import pack_code
from tidalctl.compiler.code.source_times import source_times

BULKY = "BULK = b'{fill}'\nprint('{name} runs')\nNAME = {name!r}\n"  # alone in a segment

LIBRARY = {
    "shelf/__init__.py": "from shelf import lines\nNAME = 'shelf'\n",
    "shelf/lines.py": '''
"""Lines."""

WORDS = {"one", "two", "three"}


class Line:
    def __init__(self, text):
        self.text = text

    def __eq__(self, other):
        return self.text == other.text


def fail(n):
    if n in {1, 2, "three"}:
        raise ValueError(f"line {n}")


def nested(a, b=("x", "y", 3.5)):
    return [lambda c: (a, b, c, d) for d in b]
''',
    "shelf/deep/__init__.py": "from shelf.deep import below\n",
    "shelf/deep/below.py": "NAME = 'below'\n",
    "shelf/plain/note.txt": "no package\n",
    "shelf/plain.py": "NAME = 'plain'\n",
    "shelf/data.txt": "some data\n",
    "shelf/late.py": "NAME = 'late'\n",
    "solo.py": "NAME = 'solo'\n\n\ndef where():\n    return __file__\n",
    "bulky_one.py": BULKY.format(fill="1" * 2**20, name="bulky_one"),
    "bulky_two.py": BULKY.format(fill="2" * 2**20, name="bulky_two"),
}

HEAD = """
import importlib, json, sys, types
from pathlib import Path
from tidalctl.artifacts.errors import TidalError
from tidalctl.runtime.imports.code_pack import PackFinder, PackReader
from tidalctl.runtime.process.timeline import Timeline

sys.path[:0] = sys.argv[3:]
pack = PackReader(Path(sys.argv[1]), types.SimpleNamespace(pack=sys.argv[2]), True, Timeline(0, 0))
finder = PackFinder(pack)
finder.install()
told = {}
"""
TAIL = "\nprint(json.dumps({'told': told, 'served': sorted(pack.served), 'changed': sorted(finder.changed)}))\n"


def trace_of(root: Path, imports: list[Import]) -> Trace:
    """A trace that lists just imports."""
    header = Header(
        schema=SCHEMA,
        tidalctl="0",
        function=Function(module="app", handler="handler", source="app.py"),
        root=str(root),
        cwd=str(root),
        argv=(),
        events=(),
    )
    return Trace(header, list(imports), complete=True)


def imported(name: str, file: Path, phase: str = "import") -> Import:
    return Import(name=name, file=str(file), self_s=0.0, total_s=0.0, phase=phase, plain=True)


@dataclass
class Packed:
    """A library and the pack of it."""

    library: Path
    bundle: Path

    @property
    def digest(self) -> str:
        return head_digest(self.bundle / PACK)

    def process(self, script: str, *front: Path, flags: dict[str, str] | None = None) -> Done:
        """Run a script in a fresh process that imports from the pack; `front` are folders before the library on sys.path."""
        return python(HEAD + script + TAIL, self.bundle, self.digest, *front, self.library, cwd=self.bundle, env=flags)

    def tell(self, script: str, *front: Path, flags: dict[str, str] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = self.process(script, *front, flags=flags).report
        return found


def pack_library(folder: Path) -> Packed:
    """Write the library into a folder, and the pack of all of its modules beside it."""
    library = write_project(folder / "site-packages", LIBRARY)
    bundle = folder / "app.bundle"
    bundle.mkdir()
    trace = trace_of(folder / "project", library_imports(library))
    assert pack_code(trace, bundle)
    (bundle / PROVENANCE).write_text(json.dumps(source_times(trace, bundle, ())))
    return Packed(library, bundle)


def library_imports(library: Path) -> list[Import]:
    return [
        imported(
            name.removesuffix(".py").removesuffix("/__init__").replace("/", "."),
            library / name,
            "handler" if name.endswith("late.py") else "import",
        )
        for name in LIBRARY
        if name.endswith(".py")
    ]


def rewrite(path: Path, text: str, keep_time: bool = False) -> None:
    """Change a file; by default as an editor would, at another second."""
    status = path.stat()
    path.write_text(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + (0 if keep_time else 2 * 10**9)))
