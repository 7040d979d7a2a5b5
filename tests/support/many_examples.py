"""What the tests of parts share: how many examples each checks, and traces made of records."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_artifacts import sample_records

from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import Event, Header

MANY = pytest.param(2000, marks=pytest.mark.slow)
PHASES = st.sampled_from(["import", "init", "handler"])


def on_examples(count: int, strategy: st.SearchStrategy[Any], check: Any) -> None:
    """Check this many drawn examples."""
    wanted = settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    wanted(given(strategy)(check))()


def trace_of(root: Path, *records: Any) -> Trace:
    header = sample_records()[0]
    assert isinstance(header, Header)
    function = msgspec.structs.replace(header.function, source="app.py")
    changed = msgspec.structs.replace(header, root=str(root), function=function, events=(Event(digest="", text="{}"),))
    return Trace(changed, list(records), complete=True)
