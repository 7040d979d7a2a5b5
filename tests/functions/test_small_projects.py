"""Small projects as hypothesis draws them: at home and moved, a bundle answers as the plain function does, or has told why not."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from small_bench import ProjectBench, Verdict
from small_projects import SmallProject, small_projects


@pytest.mark.parametrize(
    ("count", "parts"), [(4, 8), pytest.param(300, 6, marks=[pytest.mark.slow, pytest.mark.timeout(4 * 3600)])]
)
def test_bundles_of_small_projects_answer_as_the_plain_function_does(tmp_path: Path, count: int, parts: int) -> None:
    verdicts: list[Verdict] = []

    # what is found is shrunk by hand: each try costs ten seconds
    @settings(
        max_examples=count, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None
    )
    @given(small_projects(parts=parts))
    def check(project: SmallProject) -> None:
        verdicts.append(bench.check(project))

    with ProjectBench(tmp_path) as bench:
        check()
    strategies = Counter(strategy for verdict in verdicts for strategy in verdict.strategies)
    assert strategies["snapshot"] > len(verdicts), (strategies, Counter(verdict.blocked for verdict in verdicts))
