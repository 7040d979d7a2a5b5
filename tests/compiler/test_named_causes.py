"""Causes name the thing and the remedy: memory that nothing wrote to, what differs between two runs, files that init writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Chain
from sample_artifacts import sample_records
from test_causes_of_traces import recorded

from tidalctl.artifacts.cause import Cause
from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.state.skeleton import why_not_picklable
from tidalctl.artifacts.trace.file import Trace, read_trace
from tidalctl.artifacts.trace.records import FileOpened, Header
from tidalctl.compiler.conditions import not_reproducible, written_file
from tidalctl.compiler.ladder import _refuse_changed_checkpoint
from tidalctl.compiler.snapshot.records import SnapshotReport
from tidalctl.compiler.strategy import Strategy

DIFFERS = """
import time
import uuid
from types import SimpleNamespace

import tidalctl
import torch

FOLDER = "FOLDER/"


@tidalctl.init(static=True)
def load():
    for name, text in (("size", "4"), ("stamp", str(time.time())), ("words", "a b")):
        with open(FOLDER + name, "w") as file:
            file.write(text)
    with open(FOLDER + "size") as file, open(FOLDER + "stamp") as stamp:
        stamp.read()
        return {"ones": torch.ones(int(file.read())), "run": [SimpleNamespace(name="run", id=uuid.uuid4().hex)]}


def handler(event, context):
    ones = load()["ones"]
    with open(FOLDER + "words") as file:
        return [(ones * event["x"]).tolist(), file.read()]
"""


def test_what_differs_between_two_runs_is_named_and_so_are_files_that_init_writes(
    chain: Callable[..., Chain], tmp_path: Path
) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    made = chain(DIFFERS.replace("FOLDER/", f"{folder}/"), {"x": 1.0})
    (fallback,) = made.manifest["fallbacks"]
    assert (fallback["strategy"], fallback["code"]) == ("eager", "not-reproducible")
    assert 'two runs of app:load differ in state["run"][0].id (' in fallback["cause"]
    assert f"note      init writes {folder}/stamp, and other bytes each time" in made.said()
    assert f"{folder}/size, and other" not in made.said()
    opened = read_trace(made.trace).of(FileOpened)
    written = {(file.phase, Path(file.path).name) for file in opened if file.written is not None}
    assert written == {("init", "size"), ("init", "stamp"), ("handler", "words")}
    assert written_file("app:load", opened) == Cause.WRITTEN_FILE_READ.of(init="app:load", file=folder / "words")


def ones(event: dict[str, Any]) -> Any:
    return {"weight": torch.ones(2)}


def strategy(load: Callable[[dict[str, Any]], Any]) -> Strategy:
    return Strategy(kind="snapshot", inits=(recorded(load, 0, {}),))


def opened_file(path: Path, phase: str, written: str | None) -> FileOpened:
    return FileOpened(path=str(path), given=path.name, phase=phase, size=1, mtime_ns=1, written=written)


def test_a_file_that_only_init_or_only_the_handler_opens_is_no_cause() -> None:
    files = [opened_file(Path("/f"), "init", "ab"), opened_file(Path("/g"), "handler", None)]
    assert written_file("app:load", files) is None


def test_a_checkpoint_that_changed_is_an_error_and_a_file_that_init_writes_anew_is_none(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("other")
    header = next(record for record in sample_records() if isinstance(record, Header))
    differs = SnapshotReport(outputs=(), states={0: {"weight": "another digest"}})
    for written, report, refused in ((None, differs, True), ("ab", differs, False), (None, SnapshotReport(outputs=()), False)):
        trace = Trace(header, [opened_file(tmp_path / "weights", "init", written)], True)
        if refused:
            with pytest.raises(TidalError, match="has changed since the trace"):
                _refuse_changed_checkpoint(strategy(ones), trace, report)
        else:
            _refuse_changed_checkpoint(strategy(ones), trace, report)


def never(event: dict[str, Any]) -> Any:
    return {"cache": {"k": torch.empty(2, 12)}}


def half(event: dict[str, Any]) -> Any:
    cache = torch.empty(2, 12, dtype=torch.float64)
    cache[0] = 1.0
    return {"cache": {"k": torch.nn.Parameter(cache.to(torch.float32), requires_grad=False)}}


def over_numpy(event: dict[str, Any]) -> Any:
    cache = torch.empty(2, 12)
    cache.numpy()[:] = 1.0
    return {"cache": {"k": cache}}


def filled(event: dict[str, Any]) -> Any:
    return {"cache": {"k": torch.empty_like(torch.ones(2, 12)).fill_(1.0)}}


@pytest.mark.parametrize(("load", "empty"), [(never, True), (half, True), (over_numpy, False), (filled, False)])
def test_memory_that_nothing_wrote_to_is_told_from_random_numbers(load: Callable[..., Any], empty: bool) -> None:
    made = strategy(load)
    (weight,) = made.inits[0].weights
    cause = not_reproducible(made, SnapshotReport(outputs=(), states={0: {weight.names[0]: "another digest"}}))
    assert cause is not None
    if empty:
        assert cause == Cause.NEVER_WRITTEN.of(weight="cache.k")
    else:
        assert cause.code == Cause.NOT_REPRODUCIBLE.code and "the content of cache.k" in cause.text
    assert not_reproducible(made, SnapshotReport(outputs=(), states={0: {weight.names[0]: weight.digest}})) is None


def test_a_lambda_is_named_with_the_remedy() -> None:
    assert why_not_picklable((1, lambda: 1)) == "state[1]: a lambda (make it a def at the top level of its module)"
