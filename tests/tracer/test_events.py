"""The events of a trace lie beside it, for their owner; no other file, of the trace or of the bundle, holds them or the arguments."""

import json
import os
import platform
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Chain, forked, write_project
from sample_artifacts import sample_records, write_trace

from tidalctl.artifacts.bundle.provenance import read_provenance
from tidalctl.artifacts.errors import TidalError
from tidalctl.artifacts.trace.events import events_path, with_events, write_events
from tidalctl.artifacts.trace.file import read_trace
from tidalctl.function.command_line import argv_digest

APP = """
import sys

import torch

import tidalctl


@tidalctl.init
def load(event):
    return torch.full((4,), float(len(event["secret"])))


def handler(event, context):
    return [load(event).sum().item(), event["prompt"], sys.argv[1], open(event["file"]).read()]
"""


def test_no_file_but_that_of_the_events_holds_them_and_a_moved_bundle_agrees_in_its_arguments(
    chain: Callable[..., Chain], tmp_path: Path
) -> None:
    (tmp_path / "requested.txt").write_text("of the request")
    event = {"secret": "squeamish", "prompt": "ossifrage", "file": str(tmp_path / "requested.txt")}
    config, given = tmp_path / "project" / "config.json", "--token=antimacassar"
    made = chain(APP, event, options=("--", f"--config={config}", given))
    assert stat.S_IMODE(events_path(made.trace).stat().st_mode) == 0o600
    for path in (made.trace, *(path for path in made.bundle.rglob("*") if path.is_file())):
        data = path.read_bytes()
        of_trace = ("squeamish", "ossifrage")
        for word in of_trace if path == made.trace else (*of_trace, "requested.txt", "antimacassar", "config.json"):
            assert word.encode() not in data, (path, word)
    provenance = (made.bundle / "provenance.json").read_text()
    assert str(tmp_path) not in provenance and '"/' not in provenance and f'"{platform.node()}' not in provenance
    found = read_provenance(made.bundle)
    assert (found["root"], found["cwd"]) == (str(made.project), str(made.folder))
    assert set(found["code_files"]) >= {str(made.project / "app.py"), json.__file__}

    moved = Chain(tmp_path / "moved" / "further", made.events)
    moved.folder.mkdir(parents=True)
    made.bundle.rename(moved.bundle)
    there = f"--config={moved.bundle / 'code' / 'config.json'}"
    report = moved.run(event, "--", there, given)
    assert report["fallback"] is None, report["fallback"]
    assert (report["strategy"], report["output"]) == ("snapshot", [36.0, "ossifrage", there, "of the request"])


def test_arguments_are_compared_by_their_place_in_the_project() -> None:
    home = argv_digest(["/home/me/app/a.json", "--b=/home/me/app"], ["/home/me/app"])
    assert argv_digest(["/srv/x.bundle/code/a.json", "--b=/srv/x.bundle/code"], ["/srv/x.bundle/code", "/srv"]) == home
    assert argv_digest(["/srv/apple/a.json", "--b=/srv/app"], ["/srv/app"]) != home
    assert argv_digest(["/srv/app/x"], ["/app"]) == argv_digest(["/srv/app/x"], []), "a folder counts where a path begins"
    assert argv_digest([], ["/srv"]) == "" != argv_digest([""], [])


def test_compile_needs_the_events_of_the_trace_and_inspect_shows_them_where_they_are(decoder: Chain, tmp_path: Path) -> None:
    trace, events = tmp_path / "app.trace", tmp_path / "app.events"
    shutil.copy(decoder.trace, trace)
    shutil.copy(events_path(decoder.trace), events)
    assert (
        '{"prompt": [3, 1, 4], "max_new_tokens": 5}' in forked("inspect", trace, cwd=tmp_path, env={"COLUMNS": "300"}).ok().out
    )
    (line,) = events.read_text().splitlines()
    for text in (line.replace("5", "6"), "", "{", "[1]", f"{line}\n{line}"):
        events.write_text(text)
        with pytest.raises(TidalError, match=r"app\.events does not hold") as caught:
            with_events(read_trace(trace), trace)
        assert caught.value.hint is not None and "trace again" in caught.value.hint
    events.unlink()
    forked("compile", trace, cwd=tmp_path).one_error("app.events", "trace again")
    shown = forked("inspect", trace, cwd=tmp_path, env={"COLUMNS": "300"}).ok().out
    assert f"sha256 {decoder.manifest['events'][0]}" in shown and "[3, 1, 4]" not in shown
    assert not (tmp_path / "app.bundle").exists()


def test_both_files_are_replaced_by_force_and_nothing_else_is(tmp_path: Path) -> None:
    write_project(tmp_path / "project", "def handler(event, context):\n    raise KeyError(event['prompt'])\n")
    asked = ("trace", "project/app.py", "--event", '{"prompt": "hi"}')
    (tmp_path / "app.events").write_text('{"prompt": "my own"}\n')
    forked(*asked, "--force", cwd=tmp_path).one_error("app.events exists and is no list of events")
    write_events(tmp_path / "app.events", ['{"prompt": "earlier"}'])
    forked(*asked, cwd=tmp_path).one_error("app.events exists", "--force")
    write_trace(tmp_path / "app.trace", sample_records())
    before = (tmp_path / "app.events").read_bytes()
    failed = forked(*asked, "--force", cwd=tmp_path).one_error("raised KeyError", code=1)
    assert "app.trace.partial" in failed.err
    assert (tmp_path / "app.events").read_bytes() == before, "a trace that failed leaves the pair that was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app.events", "app.trace", "app.trace.partial", "project"]


def test_events_are_lines_of_their_owners_whatever_they_hold(tmp_path: Path) -> None:
    texts = ['{"a": "line\\nend \\u2028",\n "b": [1.5, null]}', "{}"]
    path = tmp_path / "named"
    old = os.umask(0)
    try:
        write_events(events_path(path), texts)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "named.events").stat().st_mode) == 0o600
    assert len((tmp_path / "named.events").read_bytes().splitlines()) == 2
    write_trace(path, sample_records())
    with pytest.raises(TidalError, match="does not hold the events of"):
        with_events(read_trace(path), path)
