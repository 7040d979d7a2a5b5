"""Small projects as hypothesis draws them: at home and moved, a bundle answers as the plain function does, or has told why not."""

from pathlib import Path

import pytest
from small_bench import assert_most_restored, verdicts_on
from small_projects import small_projects


@pytest.mark.parametrize(
    ("count", "parts"), [(2, 8), pytest.param(300, 6, marks=[pytest.mark.slow, pytest.mark.timeout(4 * 3600)])]
)
def test_bundles_of_small_projects_answer_as_the_plain_function_does(tmp_path: Path, count: int, parts: int) -> None:
    assert_most_restored(verdicts_on(tmp_path, small_projects(parts=parts), count))
