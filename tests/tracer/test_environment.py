"""Which environment variables count as read: those that the project asks for, itself or by a library, and not what libraries need."""

import sys
from pathlib import Path

import pytest

from tidalctl.artifacts.records import digest_json
from tidalctl.artifacts.trace.records import EnvironReads
from tidalctl.tracer.process.clock import TraceClock
from tidalctl.tracer.process.environment import EnvironRecorder


def recorded(root: Path, text: str) -> EnvironReads:
    """What is noted while a module of the project is run."""
    source = root / "app.py"
    source.write_text(text)
    with EnvironRecorder(TraceClock(), str(root)) as recorder:
        exec(compile(text, str(source), "exec"), {"__file__": str(source)})
        recorder.init_called()
    return recorder.reads()


def reads(root: Path, text: str) -> dict[str, str]:
    return recorded(root, text).variables


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.environ['HOME']",
        "import os\nos.getenvb(b'HOME')",
        "import os\nos.path.expanduser('~/x')",
        "from pathlib import Path\nPath.home()",
        "from pathlib import Path\nPath('~/x').expanduser()",
        "import os, string\nstring.Template('${HOME}').substitute(os.environ)",
        "import os, string\nstring.Formatter().vformat('{HOME}', (), os.environ)",
        "import collections, os\ncollections.ChainMap({}, os.environ)['HOME']",
        "import os\n'{HOME}'.format_map(os.environ)",
        "import functools, os\nfunctools.partial(os.environ.get, 'HOME')()",
    ],
)
def test_a_variable_that_the_project_asks_the_standard_library_for_is_the_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert reads(tmp_path, text) == {"HOME": digest_json(["/somewhere"])}


@pytest.mark.parametrize(
    "text",
    [
        "import tempfile\ntempfile.tempdir = None\nwith tempfile.TemporaryDirectory():\n    pass",
        "import subprocess\nsubprocess.run(['true'])",
        "import shutil\nshutil.which('true')",
        "import urllib.request\nurllib.request.getproxies()",
        "import ctypes.util\nctypes.util.find_library('c')",
        "import logging\nlogging.getLogger('x').warning('y')",
        "import argparse\nargparse.ArgumentParser().format_help()",
        "import importlib, webbrowser, getpass, locale\nimportlib.reload(webbrowser)\nimportlib.reload(locale)",
    ],
)
def test_what_the_standard_library_reads_on_its_own_account_is_nobodys(tmp_path: Path, text: str) -> None:
    assert reads(tmp_path, text) == {}


@pytest.mark.parametrize(("name", "noted"), [("library", {"HOME"}), ("transformers", set())])
def test_a_library_reads_on_the_projects_behalf_unless_it_is_known_to_read_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, noted: set[str]
) -> None:
    library = tmp_path / "site-packages" / name
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("")
    (library / "paths.py").write_text("from pathlib import Path\n\ndef look():\n    return Path.home()\n")
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(library.parent)
    assert set(reads(tmp_path, f"from {name} import paths\npaths.look()")) == noted
    for module in (name, f"{name}.paths"):
        monkeypatch.delitem(sys.modules, module, raising=False)


def test_levels_of_logging_are_nobodys(tmp_path: Path) -> None:
    assert set(reads(tmp_path, "import os\n[os.environ.get(n) for n in ('LOG_LEVEL', 'APP_LOG_LEVEL', 'LEVEL')]")) == {"LEVEL"}


@pytest.mark.parametrize(
    "text", ["dict(os.environ)", "os.environ.copy()", "[v for k, v in os.environ.items() if k == 'HOME']", "{**os.environ}"]
)
def test_who_looks_at_all_variables_is_told_and_pins_none(tmp_path: Path, text: str) -> None:
    found = recorded(tmp_path, f"import os\n{text}\nos.environ.get('ONE')")
    assert (found.all_by, set(found.variables)) == ("app.py:2", {"ONE"})


def test_a_variable_that_the_program_sets_counts_as_it_was_before_and_as_it_is_when_init_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SET", "DEFAULTED", "GIVEN"):
        monkeypatch.setenv(name, "")  # so that what the program sets goes again
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIVEN", "mine")
    text = (
        "import os\nos.environ['SET'] = os.path.dirname(__file__)\nos.environ['SET']\n"
        "os.environ.setdefault('DEFAULTED', '1')\nos.environ.setdefault('GIVEN', '2')"
    )
    found = recorded(tmp_path, text)
    unset = digest_json([None])
    assert found.variables == {"SET": unset, "DEFAULTED": unset, "GIVEN": digest_json(["mine"])}
    assert found.at_init == {"SET": digest_json(["project:"]), "DEFAULTED": digest_json(["1"])}


CACHED = """
import functools, os

@functools.lru_cache
def settings():
    return os.environ.get("CACHED")

class Settings:
    @functools.cached_property
    def seed(self):
        return os.environ.get("PROPERTY")

def plain():
    return os.environ.get("PLAIN")

def handler():
    return settings(), Settings().seed, plain()

def after():
    return os.environ.get("AFTER")
"""


def test_what_the_handler_reads_before_init_counts_where_a_cache_keeps_it_for_init(tmp_path: Path) -> None:
    source, clock, names = tmp_path / "app.py", TraceClock(), {"__file__": str(tmp_path / "app.py")}
    source.write_text(CACHED)
    with EnvironRecorder(clock, str(tmp_path)) as recorder:
        exec(compile(CACHED, str(source), "exec"), names)
        with clock.entering("handler"):
            names["handler"]()  # type: ignore[operator]
            recorder.init_called()
            names["after"]()  # type: ignore[operator]
    assert set(recorder.reads().variables) == {"CACHED", "PROPERTY"}
