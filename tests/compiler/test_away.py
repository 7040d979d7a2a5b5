"""What compile proves is what runs elsewhere: another folder, with the project gone, and nothing shipped that looks like a secret."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Chain, Done, tidalctl, write_project

from tidalctl.compiler.away import Away

APP = """
import json
import os
from functools import cache
from pathlib import Path

import torch

HERE = Path(__file__).parent
KEY = (HERE / "secrets" / "service.json").exists()


@cache
def settings():
    return json.loads((HERE / "settings.json").read_text()) if (HERE / "settings.json").exists() else {"factor": 1}


def load(folder, other):
    assert folder == Path(other)
    (HERE / "checkpoint.bin").read_bytes()
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 4)
    net.load_state_dict(torch.load(folder / "w.pt"))
    net.bias.data += torch.load(Path(os.environ["OUTSIDE"]) / "bias.pt")
    return net, settings()["factor"]


_state = None


def handler(event, context):
    global _state
    if _state is None:
        _state = load(HERE / "model", os.path.join(HERE, "model"))
    if event["fail"]:
        load(Path("/"), "/")
    name = event["m"] if os.path.isfile(HERE / "words" / f"{event['m']}.txt") else "none"
    words = sorted(path.name for path in HERE.glob("words/??.txt"))
    empty = os.path.isdir(HERE / "cache")
    return [name, words, empty, _state[0](torch.ones(4))[0].item() * _state[1] * settings()["factor"]]
"""
EVENT = {"m": "en", "fail": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    import torch

    made = Chain(tmp_path_factory.mktemp("away"), [EVENT], ["--init", "app:load"])
    files = {"app.py": APP, "settings.json": '{"factor": 3}', ".env": "A=1234567890", "secrets/service.json": "{}"}
    write_project(made.project, {**files, "words/en.txt": "en", "words/de.txt": "de", "unused.txt": "never asked about"})
    (made.project / "words/link.txt").symlink_to("../.env")
    for folder in (made.project / "model", made.project / "cache", made.folder / "outside"):
        folder.mkdir()
    torch.save(torch.nn.Linear(4, 4).state_dict(), made.project / "model/w.pt")
    torch.save(torch.ones(4), made.folder / "outside/bias.pt")
    with open(made.project / "checkpoint.bin", "wb") as file:
        file.truncate(65 * 2**20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTSIDE", str(made.folder / "outside"))
        yield made.make()


def moved(made: Chain, folder: Path, event: dict[str, object]) -> Done:
    """Run a copy of the bundle while the project, and what lies beside it, is gone."""
    shutil.copytree(made.bundle, folder / "elsewhere.bundle")
    away = made.folder.with_name("gone")
    made.folder.rename(away)
    try:
        return tidalctl("run", "elsewhere.bundle", "--event", json.dumps(event), "--json", cwd=folder)
    finally:
        away.rename(made.folder)


@pytest.mark.parametrize("word", ["en", "de", "fr"])
def test_a_moved_bundle_answers_from_the_snapshot_as_the_plain_function_does_at_home(
    made: Chain, tmp_path: Path, word: str
) -> None:
    event = {**EVENT, "m": word}
    report = moved(made, tmp_path, event).report
    assert report["output"] == made.plain(event)
    assert report["strategy"] == "snapshot"


def test_what_was_used_is_shipped_and_nothing_else(made: Chain) -> None:
    shipped = {name.removeprefix("code/") for name in made.manifest["files"] if name.startswith("code/")}
    assert shipped == {"app.py", "settings.json", "model/w.pt", "words/en.txt", "words/de.txt"}
    assert "ships     code 1 file" in made.said() and "data 4 files" in made.said()


def test_what_stays_behind_is_told(made: Chain) -> None:
    assert "checkpoint.bin (68.2 MB) is read by init alone and is not shipped" in made.said()
    assert "secrets/service.json looks like a secret and is not shipped" in made.said()


def test_the_user_says_what_is_shipped(made: Chain) -> None:
    for name in ("more.txt", "other.txt"):
        (made.project / name).touch()
    (made.project / ".tidalignore").write_text("*.txt\n!u*.txt\n!words/*\n!more.txt\n")
    options = ("--checkpoint", "--include", "*.txt", "--include", "secrets/*", "--exclude", "more.txt")
    done = tidalctl("compile", made.trace, "-o", "chosen.bundle", "--json", "--explain", *options, cwd=made.folder).ok()
    names = set(json.loads((made.folder / "chosen.bundle/manifest.json").read_bytes())["files"])
    assert {"code/checkpoint.bin", "code/unused.txt", "code/secrets/service.json", "code/words/en.txt"} <= names
    assert not {"code/more.txt", "code/other.txt"} & names
    assert json.loads(done.out)["strategy"] == "snapshot"
    assert "code/checkpoint.bin" in done.err


def test_what_a_bundle_holds_of_a_failure_names_no_folder_of_the_machine() -> None:
    away = Away(bundle="/w/x.work/moved.bundle", root="/w/app", kept=(), hidden=(), scratch="", told="")
    text = "No such file: '/w/x.work/moved.bundle/code/a.txt', and not '/w/app/b.txt' of '/w/apple'"
    assert away.without_folders(text) == "No such file: 'bundle/code/a.txt', and not 'project/b.txt' of '/w/apple'"


def test_without_namespaces_pythons_own_ways_find_no_file(tmp_path: Path) -> None:
    write_project(tmp_path, {"root/data.txt": "x", "root/kept/inner.txt": "y", "outside.txt": "z"})
    request = {"root": "root", "kept": ["root/kept"], "hidden": ["outside.txt"], "scratch": ".", "told": "told"}
    request |= {name: str(tmp_path / request[name]) for name in ("root", "scratch", "told")}
    request |= {name: [str(tmp_path / path) for path in request[name]] for name in ("kept", "hidden")}
    script = f"""
import os, runpy, sys
from pathlib import Path
from tidalctl.compiler import away_child

def forbidden():
    raise PermissionError
away_child._own_namespace = forbidden
sys.argv = ["x", {json.dumps(request)!r}]
runpy.run_module = lambda *a, **k: None
away_child.main()
for name in ("root/data.txt", "root/kept/inner.txt", "outside.txt"):
    path = Path({str(tmp_path)!r}, name)
    print(path.exists(), os.path.isfile(path), os.access(path, os.R_OK) and path.exists())
    try:
        print(path.read_text())
    except FileNotFoundError:
        print("none")
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    hidden = ["False False False", "none"]
    assert done.stdout.splitlines() == [*hidden, "True True True", "y", *hidden]
    assert (tmp_path / "told").exists()
