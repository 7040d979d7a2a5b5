"""A bundle in another environment with the same packages: other paths and times, zip files, editable installs, read-only folders."""

import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import TIDALCTL, Chain, Done, distribution, files_below, write_project

APP = """
import edited
import finder_edited
import shelf.lines
import tidalctl
import torch
import zipped


@tidalctl.init(static=True)
def load(event):
    return {"weight": torch.ones(2), "line": shelf.lines.Line()}


def handler(event, context):
    state = load(event)
    told = [module.NAME for module in (edited, finder_edited, shelf.lines, zipped)]
    return [state["weight"].tolist(), type(state["line"]).__name__, *told]
"""
SITE = {
    "shelf/__init__.py": "",
    "shelf/lines.py": "NAME = 'lines'\n\n\nclass Line:\n    pass\n",
    "sitecustomize.py": "import os, site\nsite.addsitedir(os.path.dirname(__file__))\n",
    "__editable__.edited.pth": "{sources}/plain\n",
    "__editable__.finder_edited.pth": "import __editable___finder\n",
    # as setuptools writes it for a package that lies otherwise than its name says
    "__editable___finder.py": """
import sys
from importlib.util import spec_from_file_location


class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return spec_from_file_location(name, "{sources}/mapped/__init__.py") if name == "finder_edited" else None


sys.meta_path.append(Finder)
""",
}
SOURCES = {"plain/edited.py": "NAME = 'plain'\n", "mapped/__init__.py": "NAME = 'mapped'\n"}


def environment(folder: Path) -> dict[str, str]:
    """Make the environment in a folder: site-packages, a zipped egg, sources of editable installs. Returns its variables."""
    sources = write_project(folder / "sources", SOURCES)
    site = write_project(
        folder / "site-packages", {name: text.replace("{sources}", str(sources)) for name, text in SITE.items()}
    )
    distribution(site, "shelf", [name for name in SITE if name.startswith("shelf/")])
    distribution(site, "edited", ["__editable__.edited.pth"])
    write_zip(folder, "zipped")
    return variables(folder)


def write_zip(folder: Path, name: str) -> None:
    with zipfile.ZipFile(folder / "zipped.egg", "w") as file:
        file.writestr("zipped.py", f"NAME = {name!r}\n")
        file.writestr("EGG-INFO/PKG-INFO", "Name: zipped\nVersion: 1.0\n")
        file.writestr("EGG-INFO/top_level.txt", "zipped\n")


def variables(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{folder}/site-packages:{folder}/zipped.egg", "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Nobody may change it: `made` is a copy, whose environment is another one. Its own is out of reach of other users."""
    folder = tmp_path_factory.mktemp("home")
    write_project(folder / "project", APP)
    return Chain(folder, [{}], env=environment(folder)).make()


@pytest.fixture
def made(compiled: Chain, tmp_path: Path) -> Chain:
    """The bundle without the project, in an environment with the same packages that was installed later."""
    shutil.copytree(compiled.bundle, tmp_path / "app.bundle")
    env = environment(tmp_path)
    for path in tmp_path.glob("s*/**/*"):
        os.utime(path, (2_000_000_000, 2_000_000_000))
    return Chain(tmp_path, [{}], env=env)


ANSWER = [[1.0, 1.0], "Line", "plain", "mapped", "lines", "zipped"]


def test_another_environment_is_served_and_nothing_is_written_into_it(made: Chain) -> None:
    before = [files_below(made.folder), sorted(made.folder.rglob("__pycache__"))]
    report = made.run({})
    assert (report["output"], report["strategy"], report["cause"]) == (ANSWER, "snapshot", None)
    assert report["modules"]["changed"] == 0
    assert report["modules"]["packed"] > 500
    assert [files_below(made.folder), sorted(made.folder.rglob("__pycache__"))] == before


def test_code_that_has_changed_is_what_runs(made: Chain) -> None:
    """Of the same size: in an editable install of either kind, and in a zip file whose version is the same."""
    (made.folder / "sources/plain/edited.py").write_text("NAME = 'Plain'\n")
    (made.folder / "sources/mapped/__init__.py").write_text("NAME = 'Mapped'\n")
    write_zip(made.folder, "Zipped")
    report = made.run({})
    assert report["output"] == [*ANSWER[:2], "Plain", "Mapped", "lines", "Zipped"]
    assert report["modules"]["changed"] == 1  # what a finder of its own finds, or a zip file holds, is in no pack


def test_what_differs_is_named_with_both_versions_and_so_is_what_is_missing(made: Chain) -> None:
    with zipfile.ZipFile(made.folder / "zipped.egg", "w") as file:
        file.writestr("zipped.py", "NAME = 'zipped'\n")
        file.writestr("EGG-INFO/PKG-INFO", "Name: zipped\nVersion: 1.1\n")
    shutil.rmtree(made.folder / "site-packages/shelf-1.0.dist-info")
    report = made.run({})
    assert (report["output"], report["cause"]) == (ANSWER, "packages-differ")
    assert "shelf not here, 1.0 in the trace; zipped 1.1 here, 1.0 in the trace" in report["fallback"]


def closed(path: Path) -> Path | None:
    """The topmost folder above a path that another user can't enter."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)


def as_nobody(folder: Path, *command: object) -> Done:
    """Run a command as another user without a home, with the folder at /mnt/shipped, read-only.

    What Python needs is made visible where the folders above are this user's alone: all in a mount namespace of the command's own.
    """
    needed = dict(
        enumerate(dict.fromkeys(Path(path).resolve() for path in (sys.base_prefix, sys.prefix, Path(__file__).parents[2])))
    )
    hidden = {number: where for number, path in needed.items() if (where := closed(path)) is not None}
    lines = [
        "set -e",
        "mount -t tmpfs -o mode=755 none /mnt",
        "mkdir /mnt/shipped",
        f"mount --bind {shlex.quote(str(folder))} /mnt/shipped",
        "mount -o remount,bind,ro /mnt/shipped",
        *(f"mkdir /mnt/{number}; mount --bind {shlex.quote(str(needed[number]))} /mnt/{number}" for number in hidden),
        *(f"mount -t tmpfs -o mode=755 none {shlex.quote(str(where))}" for where in dict.fromkeys(hidden.values())),
        *(f"mkdir -p {path}; mount --bind /mnt/{n} {path}" for n in hidden for path in [shlex.quote(str(needed[n]))]),
        "cd /mnt/shipped",
        f"exec setpriv --reuid=65534 --regid=65534 --clear-groups {shlex.join(map(str, command))}",
    ]
    env = {name: value for name, value in os.environ.items() if name != "HOME"} | variables(Path("/mnt/shipped"))
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_another_user_on_a_read_only_mount_is_served(made: Chain) -> None:
    if os.getuid() or not all(map(shutil.which, ("unshare", "setpriv"))):
        pytest.skip("only root may become another user and mount a folder")
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel lets root mount nothing")
    for path in made.folder.glob("s*/**/*.*"):
        if path.is_file():
            path.write_text(path.read_text().replace(str(made.folder), "/mnt/shipped"))
    made.folder.chmod(0o777)
    written = as_nobody(made.folder, "touch", "/mnt/shipped/written")
    assert "Read-only file system" in written.err
    report = as_nobody(made.folder, *TIDALCTL, "run", "app.bundle", "--event", "{}", "--json").report
    assert (report["output"], report["strategy"], report["cause"]) == (ANSWER, "snapshot", None)
    assert report["modules"]["changed"] == 0
