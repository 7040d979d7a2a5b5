"""Which environment variables count as read by the project: those that its code asks for, itself or by the standard library."""

import sys
from pathlib import Path

import pytest

from tidalctl.artifacts.records import digest_json
from tidalctl.tracer.process.clock import TraceClock
from tidalctl.tracer.process.environment import EnvironRecorder


def reads(root: Path, text: str) -> dict[str, str]:
    """What is noted while a module of the project is run."""
    source = root / "app.py"
    source.write_text(text)
    with EnvironRecorder(TraceClock(), str(root)) as recorder:
        exec(compile(text, str(source), "exec"), {})
    return recorder.reads


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.environ['HOME']",
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


def test_what_a_library_reads_is_not_the_projects_even_by_way_of_the_standard_library(tmp_path: Path) -> None:
    library = tmp_path / "site-packages" / "library.py"
    library.parent.mkdir()
    library.write_text("from pathlib import Path\n\ndef look():\n    return Path.home()\n")
    text = f"import sys\nsys.path.insert(0, {str(library.parent)!r})\nimport library\nlibrary.look()\nsys.path.pop(0)"
    assert reads(tmp_path, text) == {}
    del sys.modules["library"]
