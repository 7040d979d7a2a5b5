"""README and docs/ agree with the program: options, links, paths, names of files in a bundle, what a host answers."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pages
import pytest
import typer.main

from tidalctl.artifacts.secret_names import FILES as SECRET_NAMES
from tidalctl.cli import VERBS, _app
from tidalctl.tracer.process.environment import NEUTRAL

README = pages.ROOT / "README.md"
DOCS = pages.ROOT / "docs"
EVERY = [pytest.param(page, id=pages.name_of(page)) for page in pages.PAGES]
FOLDERS = ("artifacts", "benchmarks", "compiler", "docs", "examples", "tests", "tidalctl", "tracer")


@pytest.fixture(scope="module")
def verbs() -> dict[str, Any]:
    command: Any = typer.main.get_command(_app())
    return dict(command.commands)


def options_of(command: Any) -> set[str]:
    """As `--help` lists them: every name of every option."""
    named = {name for option in command.params if option.param_type_name == "option" for name in option.opts}
    return named | {"--help"}


def documented_options(page: Path) -> set[str]:
    """Names in the first column of the table below "## Options"."""
    section = page.read_text().partition("\n## Options\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`-.*?) \|", section.replace(r"\|", "/"), flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row)}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_page_lists_the_options_that_its_help_lists(verb: str, verbs: dict[str, Any]) -> None:
    pages = [verb, "trace", "compile"] if verb == "build" else [verb]
    assert {name for page in pages for name in documented_options(DOCS / f"{page}.md")} == options_of(verbs[verb])


def test_every_verb_has_a_page_and_stands_in_the_lists(verbs: dict[str, Any]) -> None:
    assert set(verbs) == set(VERBS)
    for listed in (README.read_text(), (DOCS / "index.md").read_text()):
        assert set(re.findall(r"^\| \[`?(\w+)`?\]\((?:docs/)?(\w+)\.md\)", listed, flags=re.MULTILINE)) == {
            (verb, verb) for verb in VERBS
        }


def test_every_page_is_in_the_index() -> None:
    listed = {link.partition("#")[0] for link in pages.links(DOCS / "index.md")}
    assert {page.name for page in DOCS.glob("*.md")} - {"index.md"} <= listed


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", EVERY)
def test_links_lead_somewhere(page: Path) -> None:
    for link in pages.links(page):
        if re.match(r"\w+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert target.is_relative_to(pages.ROOT), link
        if anchor:
            assert anchor in pages.anchors(target), link


def paths_in(page: Path) -> set[str]:
    """Code that looks like a path of this repository: it begins with one of its folders."""
    spans = (span.strip() for span in pages.code_spans(page))
    found = {span for span in spans if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*", span)}
    return {path for path in found if "NAME" not in path}  # which stands for whatever somebody names it


@pytest.mark.parametrize("page", [page for page in EVERY if page.id != "CHANGELOG.md"])
def test_paths_of_the_repository_exist(page: Path) -> None:
    assert sorted(path for path in paths_in(page) if not (pages.ROOT / path).exists()) == []


def test_the_test_of_paths_sees_them() -> None:
    assert {"tidalctl/cli.py", "tests/conftest.py"} <= paths_in(pages.ROOT / "CONTRIBUTING.md")
    assert len(paths_in(DOCS / "architecture.md")) > 30


def test_the_contract_lists_the_neutral_packages() -> None:
    text = (DOCS / "contract.md").read_text(encoding="utf-8").partition("## Neutral packages")[2].partition("Every other")[0]
    assert set(re.findall(r"`(\w+)`", text)) == NEUTRAL


def test_the_page_of_compile_lists_what_looks_like_a_secret() -> None:
    row = next(line for line in (DOCS / "compile.md").read_text(encoding="utf-8").splitlines() if "looks like a secret" in line)
    assert set(re.findall(r"`([^` ]+)`", row.partition("in files")[0])) == set(SECRET_NAMES)


def calls(folder: str, *names: str) -> Iterator[tuple[str, list[object]]]:
    """Calls of functions by these names in a folder's modules: the module's name, and the arguments that are constants."""
    for path in (pages.ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield path.stem, [argument.value for argument in node.args if isinstance(argument, ast.Constant)]


def test_the_page_of_serve_lists_each_status_with_its_types() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.+?) \|", (DOCS / "serve.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    listed = {(int(status), kind) for status, kinds in rows for kind in re.findall(r"`(\w+)`", kinds)}
    given = {
        (constants[0], constants[1])
        for module, constants in calls("tidalctl/host/http", "Refused", "refusal")
        if module != "lambda_api" and len(constants) > 1 and isinstance(constants[0], int)
    }
    assert len(given) >= 12
    assert listed - {(500, "ValueError"), (404, "NotFound"), (405, "MethodNotAllowed")} == given


def test_the_page_of_serve_lists_the_metrics() -> None:
    rows = re.findall(r"^\| (`tidalctl_.+?) \|", (DOCS / "serve.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    listed = {name.removesuffix("_total") for row in rows for name in re.findall(r"`(\w+)`", row)}
    kinds = ("Counter", "Histogram", "GaugeMetricFamily", "CounterMetricFamily")
    assert listed == {constants[0] for _, constants in calls("tidalctl/host/http", *kinds)}
