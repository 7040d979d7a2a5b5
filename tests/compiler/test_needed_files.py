"""A bundle says which files it needs besides itself; where they are missing, that is told before the import, all at once."""

from pathlib import Path

import pytest
from conftest import Chain, chained, tidalctl

from tidalctl.artifacts.bundle.directory import open_bundle
from tidalctl.artifacts.bundle.manifest import NeededFile
from tidalctl.artifacts.trace.events import with_events
from tidalctl.artifacts.trace.file import read_trace
from tidalctl.compiler.code.needed_files import needed_files
from tidalctl.compiler.code.shipment import ShippingRules, plan_shipment
from tidalctl.report.needs import needs_text
from tidalctl.runtime.needed_files import missing_files

APP = """
import os
import tidalctl, torch

HERE = {folder!r}
IMPORTED = open(HERE + "/import.txt").read()


@tidalctl.init(static=True)
def load():
    with open(HERE + "/init.txt") as file:
        return torch.full((2,), float(file.read()))


def handler(event, context):
    if os.path.exists(HERE + "/optional.txt"):
        open(HERE + "/optional.txt").read()
    if os.path.exists(HERE + "/user/" + event["user"]):
        open(HERE + "/user/" + event["user"]).read()
    with open(HERE + "/handler.txt") as file:
        return [load().sum().item(), IMPORTED, file.read()]
"""
FILES = ("handler.txt", "import.txt", "init.txt", "optional.txt", "user/ada")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("needed")
    for name in FILES:
        (folder / "outside" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "outside" / name).write_text("1")
    return chained(folder, APP.format(folder=str(folder / "outside")), {"user": "ada"})


@pytest.fixture
def outside(chain: Chain) -> Path:
    """The folder outside the project, whole again in each test."""
    folder = chain.folder / "outside"
    for name in FILES:
        (folder / name).write_text("1")
    return folder


def test_compile_names_what_a_start_needs(chain: Chain, outside: Path) -> None:
    always, by_init = f"{outside}/handler.txt, {outside}/import.txt", f"{outside}/init.txt"
    line = f"needs     {always}; where init runs: {by_init}; 2 files that it may do without or find elsewhere"
    assert line in chain.said()


def test_what_is_missing_is_told_before_the_import_and_with_the_error(chain: Chain, outside: Path) -> None:
    for name in ("handler.txt", "import.txt", "init.txt", "optional.txt"):
        (outside / name).unlink()
    done = chain.start({"user": "ada"})
    assert done.err.startswith(
        f"note: the traced function read files that are not here: {outside}/handler.txt, {outside}/import.txt"
    )
    hint = f"put here what the traced function read: {outside}/handler.txt, {outside}/optional.txt, {outside}/import.txt"
    done.one_error("FileNotFoundError", hint, code=1)


def test_a_function_that_does_without_answers_and_nothing_is_said(chain: Chain, outside: Path) -> None:
    (outside / "optional.txt").unlink()
    (outside / "init.txt").unlink()
    done = chain.start({"user": "ada"}).ok()
    assert done.out == '[2.0, "1", "1"]\n' and "not here" not in done.err


def test_verify_here_names_what_is_missing(chain: Chain, outside: Path) -> None:
    (outside / "handler.txt").unlink()
    (outside / "init.txt").unlink()
    done = tidalctl("verify", chain.bundle, "--here", cwd=chain.folder)
    done.one_error("would not find what the traced function read", f"put here: {outside}/handler.txt", code=1)
    (outside / "handler.txt").write_text("1")
    tidalctl("verify", chain.bundle, "--here", cwd=chain.folder).ok()


def test_a_start_that_runs_init_needs_what_init_reads(chain: Chain, outside: Path) -> None:
    needs = tuple(NeededFile(**needed) for needed in chain.manifest["needs"])
    assert "where init runs" not in needs_text(needs, "eager")
    (outside / "init.txt").unlink()
    missing = [needed.file for needed in missing_files(open_bundle(chain.bundle), [], init_runs=True)]
    assert missing == [f"{outside}/init.txt"]


def test_files_of_an_event_and_of_the_project_are_not_needed(chain: Chain) -> None:
    trace = with_events(read_trace(chain.trace), chain.trace)
    found = needed_files(trace, plan_shipment(trace, ShippingRules()))
    assert {(Path(needed.file).name, needed.phase, needed.optional) for needed in found} == {
        ("import.txt", "import", False),
        ("init.txt", "init", False),
        ("handler.txt", "handler", False),
        ("optional.txt", "handler", True),
        ("ada", "handler", True),
    }
