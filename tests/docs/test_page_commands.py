"""Every command block in README and docs/ is run as it stands, but for those that are listed here with a reason.

A page's blocks are run in the order of the page, in a folder of its own. Blocks of Python that name a file are written there first.
The pages of the verbs go on from what "Getting started" made.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pages
import pytest

INSTALLS = "installs packages"
NOT_RUN = {
    ("README.md", "make demo"): "installs packages, and takes minutes",
    ("README.md", "python -m pip install"): INSTALLS,
    ("docs/getting-started.md", "python -m pip install"): INSTALLS,
    ("examples/deploy/README.md", "docker build"): "installs packages, with Docker",
    ("examples/deploy/README.md", "kubectl create"): "needs a cluster",
    ("CONTRIBUTING.md", "make test"): "runs the suite that this test is of",
    ("CONTRIBUTING.md", ".venv/bin/python -m pytest"): "runs the suite that this test is of",
}
STARTED = "docs/getting-started.md"
# the quick ones have the same commands, with other options
SLOW = {
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "bench",
            "benchmarks",
            "build",
            "compile",
            "concepts",
            "host",
            "image",
            "ps",
            "replay",
            "run",
            "serve",
            "shapes",
            "stop",
            "trace",
            "verify",
        )
    ),
}
TIMEOUT_S = 120


def commands(page: Path) -> list[pages.Block]:
    """Blocks of the page that are to be run."""
    name = pages.name_of(page)
    return [
        block
        for block in pages.blocks(page)
        if block.language in pages.COMMANDS
        and not any(name == where and block.text.startswith(begin) for where, begin in NOT_RUN)
    ]


RUN = [
    pytest.param(page, id=pages.name_of(page), marks=pytest.mark.slow if pages.name_of(page) in SLOW else ())
    for page in pages.PAGES
    if commands(page) and pages.name_of(page) != STARTED
]


def run_page(page: Path, folder: Path) -> list[str]:
    """Write the page's files and run its blocks, each as a shell script that ends at the first failure. Returns what they print."""
    printed = []
    to_run = set(commands(page))
    for block in pages.blocks(page):
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
        if block in to_run:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=folder,
                env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            assert done.returncode == 0, f"{pages.name_of(page)}, line {block.line}:\n{block.text}{done.stdout}"
            printed.append(done.stdout)
    return printed


def assert_shown(page: Path, printed: list[str]) -> None:
    """Each line of the output that the page shows begins with a word with which a line of the real one begins.

    Times, sizes and digests are another machine's. A line without spaces is what the model answers.
    """
    real = {line.split()[0] for text in printed for line in text.splitlines() if line.strip()}
    after = min(block.line for block in commands(page))
    shown = [block for block in pages.blocks(page) if block.language == "text" and block.line > after]
    lines = [line.split() for block in shown for line in block.text.splitlines()]
    assert [words for words in lines if len(words) > 1 and words[0] not in real] == []


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which somebody has followed "Getting started" to its end."""
    folder = tmp_path_factory.mktemp("started")
    assert_shown(pages.ROOT / STARTED, run_page(pages.ROOT / STARTED, folder))
    return folder


def test_getting_started_runs_as_it_stands(started: Path) -> None:
    assert (started / "app.bundle/manifest.json").is_file()


def test_readme_has_the_same_commands_on_files_that_are_there() -> None:
    readme, started = ([block.text.split() for block in commands(pages.ROOT / name)][-1] for name in ("README.md", STARTED))
    assert [word for word in readme if word in ("trace", "compile", "run")] == ["trace", "compile", "run"]
    assert {word for word in readme if "/" not in word} <= {*started}
    assert all((pages.ROOT / word).is_file() for word in readme if "/" in word)


@pytest.mark.parametrize("page", RUN)
def test_a_pages_commands_run_as_they_stand(page: Path, started: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    if pages.name_of(page).startswith("docs/"):
        shutil.copytree(started, folder)
    else:
        shutil.copytree(pages.ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__", "models"))
    printed = run_page(page, folder)
    if pages.name_of(page) == "README.md":
        assert_shown(page, printed)


def test_every_file_of_a_bundle_is_explained(started: Path) -> None:
    bundle = started / "app.bundle"
    explained = (pages.ROOT / "docs/concepts.md").read_text().partition("## The bundle")[2].partition("\n## ")[0]
    for path in bundle.iterdir():
        assert f"| `{path.name}{'/' if path.is_dir() else ''}` |" in explained


def test_commands_that_are_not_run_are_still_there() -> None:
    for name, begin in NOT_RUN:
        assert any(
            block.language in pages.COMMANDS and block.text.startswith(begin) for block in pages.blocks(pages.ROOT / name)
        ), begin


@pytest.mark.parametrize("page", [pytest.param(page, id=pages.name_of(page)) for page in pages.PAGES])
def test_indented_blocks_hold_no_commands(page: Path) -> None:
    """They would be run by nobody: commands stand in fenced blocks."""
    if pages.name_of(page) == "examples/adapters/README.md":
        pytest.skip("its commands need packages and a model")
    found = [block.text for block in pages.indented(page) if re.match(r"(\$ )?(tidalctl|python|make|pip) ", block.text)]
    assert found == []
