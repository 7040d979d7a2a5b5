"""Which files are an event's own, and in which phases a file was used."""

from pathlib import Path

import msgspec
import pytest
from sample_artifacts import sample_records

from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import Event, FileOpened, Header, PathAsked
from tidalctl.compiler.code.shipment import ShippingRules, plan_shipment
from tidalctl.compiler.traced_files import named_by_events, phases_of_use


def trace_of(*records: FileOpened | PathAsked, event: str = "{}", **more: str) -> Trace:
    header = sample_records()[0]
    assert isinstance(header, Header)
    return Trace(msgspec.structs.replace(header, events=(Event(digest="", text=event),), **more), list(records), complete=True)


def opened(path: str, given: str = "", phase: str = "init", mapped: bool = False) -> FileOpened:
    return FileOpened(path=path, given="" if mapped else given or path, phase=phase, size=1, mtime_ns=1, mapped=mapped)


@pytest.mark.parametrize(
    ("path", "given", "own"),
    [
        ("/requests/a.json", "", True),
        ("/requests/deep/b.json", "", True),
        ("/requested/a.json", "", False),
        ("/app/notes.txt", "notes.txt", True),
        ("/app/notes.txt", "", False),
        ("/app/in/c.txt", "in/c.txt", True),
        ("/app/base.pt", "", False),
    ],
)
def test_an_events_file_is_one_that_it_names_itself(path: str, given: str, own: bool) -> None:
    event = '{"folder": "/requests/", "file": "notes.txt", "inner": ["in/c.txt"], "model": "base", "none": "/"}'
    assert named_by_events(trace_of(event=event))(opened(path, given)) is own


def test_an_events_file_is_its_own_by_whatever_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    named = named_by_events(trace_of(event=f'{{"folder": "{tmp_path}/link"}}'))
    assert named(opened(f"{tmp_path}/real/a.json"))


def test_a_file_is_used_where_it_is_opened_asked_about_or_listed() -> None:
    asked = PathAsked(path="/app/a", given="a", phase="import", kind="exists", found=True)
    listed = PathAsked(path="/app", given=".", phase="handler", kind="listed", found=True)
    trace = trace_of(opened("/app/a"), opened("/app/in/b"), opened("/app/in/c", mapped=True, phase="handler"), asked, listed)
    used = phases_of_use(trace)
    assert used["/app/a"] == {"init", "import", "handler"}
    assert (used["/app/in/b"], used["/app/in/c"]) == ({"init"}, {"handler"})


@pytest.mark.parametrize("there", [True, False])
def test_of_a_file_that_the_event_names_those_of_other_events_are_told(tmp_path: Path, there: bool) -> None:
    for name in ("app.py", "words/other.txt", *["words/this.txt"] * there):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    path = f"{tmp_path}/words/this.txt"
    asked = PathAsked(path=path, given=path, phase="handler", kind="exists", found=there)
    shipment = plan_shipment(trace_of(asked, event='{"word": "this"}', root=str(tmp_path)), ShippingRules())
    assert shipment.data == ("words/this.txt",) * there
    assert [note for note in shipment.notes if "words/this.txt is named by the event: --include 'words/*.txt'" in note]
