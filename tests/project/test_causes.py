"""Every cause can happen, is provoked by a test, and has its paragraph in the docs under its code."""

import ast
import re
from pathlib import Path

import pytest

from tidalctl.artifacts.cause import PAGE, Cause, Reason

ROOT = Path(__file__).parents[2]
ENUMERATION = ROOT / "artifacts" / "cause.py"


def mentioned(folder: str, files: str) -> set[str]:
    """The causes that Python files name: `Cause.NAME`, or the code in a string."""
    found: set[str] = set()
    for path in (ROOT / folder).rglob(files):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path not in (ENUMERATION, Path(__file__)) else ():
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Cause":
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(CODES[code] for code in re.findall(r"[a-z-]+", node.value) if code in CODES)
    return found


CODES = {cause.code: cause.name for cause in Cause}
PRODUCT = set.union(*(mentioned(folder, "*.py") for folder in ("tidalctl", "artifacts", "tracer", "compiler")))
TESTS = mentioned("tests", "test_*.py")
PARAGRAPHS = dict(re.findall(r"^#+ (\S+)\n\n(.+)", (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("cause", Cause)
def test_a_cause_is_given_by_the_product_provoked_by_a_test_and_explained(cause: Cause) -> None:
    assert cause.name in PRODUCT, "nothing gives this cause"
    assert cause.name in TESTS, "no test provokes this cause, and asserts its code"
    assert len(PARAGRAPHS.get(cause.code, "")) > 40, f"{PAGE} has no paragraph under the heading {cause.code}"


def test_the_page_explains_no_cause_that_there_is_not() -> None:
    assert {code for code in PARAGRAPHS if re.fullmatch(r"[a-z-]+", code)} == {cause.code for cause in Cause}


def test_causes_differ_in_their_texts_and_name_the_case() -> None:
    assert len({cause.value for cause in Cause}) == len(Cause)
    reason = Cause.THREAD_STARTED.of(init="app:load", work="work")
    assert reason == Reason(
        code="thread-started", text="app:load starts a thread that runs work, and no snapshot holds a thread"
    )
