"""Bad input gets one `error:` line, at most one `hint:`, and the right exit code; nothing is written, nothing is lost."""

import json
import os
from pathlib import Path

import pytest
from conftest import Chain, Done, files_below, flip_bit, forked, tidalctl, write_project

from tidalctl.artifacts.bundle.manifest import decode_manifest, encode_manifest, seal
from tidalctl.artifacts.bundle.output_paths import refuse_existing, refuse_files
from tidalctl.artifacts.errors import FunctionError
from tidalctl.function.outputs import json_text
from tidalctl.report.markup import document

EVENT = json.dumps({"prompt": [3, 1, 4], "max_new_tokens": 2})
LIGHT = """
def handler(event, context):
    return 1


def handle_other(event, context):
    return 2


answer = 42
"""
OTHER = "class Model:\n    pass\n\n\ndef answer(event, context):\n    return 1\n"
ASYNC = "async def load():\n    return 1\n\n\nasync def handler(event, context):\n    return await load()\n"
TAKES_ONE = "def handler(event):\n    return 1\n"
RAISES = """
import torch
import tidalctl


@tidalctl.init
def load(event):
    return {"weight": torch.ones(2)}


def deep(event):
    raise RuntimeError(f"no luck with {event['x']}")


def handler(event, context):
    state = load(event)
    yield state["weight"].sum().item()
    deep(event)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a function that needs no torch, and an event."""
    write_project(
        tmp_path / "here",
        {"app.py": LIGHT, "other.py": OTHER, "asks.py": ASYNC, "takes.py": TAKES_ONE, "event.json": "{}", "list.json": "[1]"},
    )
    (tmp_path / "here" / "bytes.json").write_bytes(b'{"x": "\xff"}')
    return tmp_path / "here"


TRACES = {
    "no such file": (["ap.py", "--event", "{}"], ["ap.py", "app.py"]),
    "no such module": (["nosuch.module", "--event", "{}"], ["nosuch.module"]),
    "no such handler": (["app.py:handlr", "--event", "{}"], ["app:handlr", "handler"]),
    "not a function": (["app.py:answer", "--event", "{}"], ["app:answer", "not a function"]),
    "no handler in it": (["other.py", "--event", "{}"], ["other:handler", "did you mean: answer"]),
    "async init": (["asks.py", "--event", "{}", "--init", "asks:load"], ["asks:load is async", "plain function that it calls"]),
    "handler of one parameter": (["takes.py", "--event", "{}"], ["handler(event, context)", "both parameters"]),
    "no such init": (["app.py", "--event", "{}", "--init", "app:lod"], ["app:lod"]),
    "no such init module": (["app.py", "--event", "{}", "--init", "nosuch:load"], ["nosuch"]),
    "static without init": (["app.py", "--event", "{}", "--static"], ["--static", "--init app:load --static"]),
    "init without a module": (["app.py", "--event", "{}", "--init", "get_model"], ["module:function", "--init app:get_model"]),
    "no event": (["app.py"], ["--event"]),
    "event without a value": (["app.py", "--event"], ["--event", "tidalctl trace --help"]),
    "no such event": (["app.py", "--event", "evnt.json"], ["evnt.json", "event.json"]),
    "event is not JSON": (["app.py", "--event", '{"x": '], ["JSON"]),
    "event is a list": (["app.py", "--event", "[1]"], ["not a JSON object"]),
    "event file holds a list": (["app.py", "--event", "list.json"], ["list.json", "not a JSON object"]),
    "event holds what is not JSON": (["app.py", "--event", '{"x": NaN}'], ["JSON"]),
    "event holds half a character": (["app.py", "--event", '{"x": "\\ud800"}'], ["--event"]),
    "event is not text": (["app.py", "--event", "bytes.json"], ["bytes.json"]),
    "event is a folder": (["app.py", "--event", "."], ["--event .: is a folder"]),
    "standard input twice": (["app.py", "--event", "-", "--event", "-"], ["standard input"]),
    "no such option": (["app.py", "--event", "{}", "--evnt"], ["--evnt"]),
    "output in no folder": (["app.py", "--event", "{}", "-o", "nowhere/app.trace"], ["nowhere"]),
    "no target": ([], ["TARGET"]),
}


@pytest.mark.parametrize("case", TRACES)
def test_trace_refuses_what_it_can_not_trace(project: Path, temporary: dict[str, str], case: str) -> None:
    arguments, told = TRACES[case]
    before = files_below(project)
    done = forked("trace", *arguments, cwd=project, env=temporary, text="{}").one_error(*told)
    assert done.out == "" and "Warning" not in done.err
    assert files_below(project) == before


OTHERS = {
    "unknown verb": (["trase", "app.py"], ["trase"]),
    "no such trace": (["compile", "ap.trace"], ["ap.trace", "app.trace"]),
    "compile not a trace": (["compile", "app.py"], ["app.py", "not a trace"]),
    "compile an empty trace": (["compile", "empty.trace"], ["empty.trace"]),
    "compile a bundle": (["compile", "old.bundle"], ["old.bundle"]),
    "shard size": (["compile", "light.trace", "--shard-size", "big"], ["big"]),
    "no such bundle": (["run", "ol.bundle", "--event", "{}"], ["ol.bundle", "old.bundle"]),
    "run a file": (["run", "app.py", "--event", "{}"], ["app.py", "not a bundle"]),
    "run a folder": (["run", ".", "--event", "{}"], ["manifest.json", "there is: old.bundle"]),
    "run without an event": (["run", "old.bundle"], ["--event"]),
    "run on a list": (["run", "old.bundle", "--event", "[]"], ["not a JSON object"]),
    "run on no such event": (["run", "old.bundle", "--event", "evnt.json"], ["evnt.json", "event.json"]),
    "run on two events": (["run", "old.bundle", "--event", "{}", "-e", "{}"], ["--event", "2 times"]),
    "run with an unknown option": (["run", "old.bundle", "--event", "{}", "--fast"], ["--fast"]),
    "run with no such check": (
        ["run", "old.bundle", "--event", "{}", "--verify", "sometimes"],
        ["'--verify': 'sometimes' is not one of"],
    ),
    "inspect nothing": (["inspect", "ap.trace"], ["ap.trace", "app.trace"]),
    "inspect nothing anywhere": (["inspect", "nowhere/x.trace"], ["tidalctl trace"]),
    "plan nothing": (["plan", "ol.bundle", "--bandwidth", "1GB/s"], ["ol.bundle"]),
    "verify nothing": (["verify", "ol.bundle"], ["ol.bundle"]),
    "bench nothing": (["bench", "ol.bundle", "--event", "{}"], ["ol.bundle"]),
    "bench two events": (["bench", "old.bundle", "--event", "{}", "--event={}"], ["--event", "2 times"]),
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trace of a small function, and an old bundle's manifest."""
    folder = tmp_path_factory.mktemp("shelf")
    write_project(folder, {"app.py": LIGHT, "event.json": "{}", "empty.trace": "", "app.trace": ""})
    tidalctl("trace", "app.py", "--event", "{}", "-o", "light.trace", cwd=folder).ok()
    write_project(folder / "old.bundle", {"manifest.json": "{}"})
    return folder


@pytest.mark.parametrize("case", OTHERS)
def test_the_other_verbs_refuse_what_they_can_not_use(shelf: Path, temporary: dict[str, str], case: str) -> None:
    arguments, told = OTHERS[case]
    before = files_below(shelf)
    done = forked(*arguments, cwd=shelf, env=temporary).one_error(*told)
    assert done.out == ""
    assert files_below(shelf) == before


def test_what_exists_is_not_replaced_without_force(decoder: Chain, temporary: dict[str, str]) -> None:
    before = files_below(decoder.folder)
    forked("trace", "project/app.py", "--event", EVENT, cwd=decoder.folder, env=temporary).one_error("app.trace", "--force")
    forked("compile", "app.trace", cwd=decoder.folder, env=temporary).one_error("app.bundle", "--force")
    assert files_below(decoder.folder) == before


KEPT = {
    "a folder that is no bundle": ["compile", "light.trace", "-o", "kept", "--force"],
    "the project itself": ["compile", "light.trace", "-o", ".", "--force"],
    "a file in a bundle's place": ["compile", "light.trace", "-o", "app.py", "--force"],
    "a bundle in no folder": ["compile", "light.trace", "-o", "none/a.bundle"],
    "a bundle that can't be made": ["compile", "light.trace", "-o", "/sys/a.bundle"],
    "the source": ["trace", "app.py", "--event", "{}", "-o", "app.py", "--force"],
    "a trace's place, a folder": ["trace", "app.py", "--event", "{}", "-o", "kept", "--force"],
    "a trace that can't be written": ["trace", "app.py", "--event", "{}", "-o", "/proc/app.trace"],
    "what stands where a trace grows": ["trace", "app.py", "--event", "{}", "-o", "note"],
    "a page": ["run", "old.bundle", "--event", "{}", "--report", "app.py"],
    "a timeline": ["run", "old.bundle", "--event", "{}", "--timeline", "event.json"],
    "a page in a bundle": ["run", "old.bundle", "--event", "{}", "--report", "whole.bundle/code/app.html"],
    "a page, a folder": ["run", "old.bundle", "--event", "{}", "--report", "."],
    "a page that can't be written": ["run", "old.bundle", "--event", "{}", "--report", "/proc/start.html"],
    "page and timeline in one": ["run", "old.bundle", "--event", "{}", "--report", "new", "--timeline", "./new"],
    "a bench's page": ["bench", "old.bundle", "--event", "{}", "--report", "app.py"],
}


@pytest.mark.parametrize("case", KEPT)
def test_nothing_is_replaced_but_what_the_verb_itself_makes(shelf: Path, temporary: dict[str, str], case: str) -> None:
    write_project(shelf, {"kept/note": "mine", "note.partial": "mine", "whole.bundle/code/app.py": LIGHT})
    write_project(shelf, {"whole.bundle/manifest.json": '{"schema": 1, "tidalctl": "0.0.1", "files": dam'})
    before = files_below(shelf)
    done = forked(*KEPT[case], cwd=shelf, env=temporary).one_error("")
    assert (len(done.lines("hint:")), done.out) == (1, "")
    assert "old.bundle" not in done.err, "it was refused before the bundle was opened"
    assert files_below(shelf) == before


def test_force_replaces_what_the_verb_has_made_and_what_is_empty(shelf: Path, tmp_path: Path) -> None:
    write_project(tmp_path, {"old.trace": "", "start.html": "", "start.json": '{"traceEvents": []}'})
    (tmp_path / "empty").mkdir()
    write_project(tmp_path / "old.bundle", {"manifest.json": '{"schema": 1, "tidalctl": "0.0.1", "files": dam', "more": ""})
    for name, kind in (("old.trace", "trace"), ("empty", "bundle"), ("old.bundle", "bundle")):
        refuse_existing(tmp_path / name, True, kind)
    refuse_existing(shelf / "light.trace", True, "trace")
    refuse_files({"report": str(tmp_path / "start.html"), "timeline": str(tmp_path / "start.json")})
    (tmp_path / "start.html").write_text(document("title", "body"))
    refuse_files({"report": str(tmp_path / "start.html"), "timeline": "/dev/stdout"})


def test_a_handler_that_raises_leaves_its_own_traceback_and_an_incomplete_trace_that_opens(tmp_path: Path) -> None:
    write_project(tmp_path / "project", RAISES)
    done = tidalctl("trace", "project/app.py", "--event", '{"x": 3}', cwd=tmp_path).one_error("incomplete", ".partial", code=1)
    assert "RuntimeError: no luck with 3" in done.err
    assert done.err.count("Traceback (most recent call last)") == 1
    frames = [line for line in done.err.splitlines() if line.startswith('  File "')]
    assert len(frames) == 2, done.err  # handler, deep: neither tidalctl's own nor the import machinery's
    assert all(str(tmp_path / "project" / "app.py") in frame for frame in frames)
    assert not (tmp_path / "app.trace").exists()
    (partial,) = tmp_path.glob("*.partial")
    shown = tidalctl("inspect", partial, cwd=tmp_path).ok()
    assert "incomplete" in shown.out and "in handler: RuntimeError" in shown.out
    assert "no luck" in shown.out
    tidalctl("compile", partial, "-o", "app.bundle", cwd=tmp_path).one_error("incomplete")
    assert not (tmp_path / "app.bundle").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import torhc\n\ndef handler(event, context):\n    return 1\n", "No module named 'torhc'"),
        ("def handler(event, context)\n    return 1\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("def handler(event, context):\n    return {1, 2}\n", "not JSON"),
    ],
    ids=["import", "syntax", "exit", "output"],
)
def test_a_module_or_an_output_that_is_wrong_is_the_functions_failure(tmp_path: Path, text: str, told: str) -> None:
    write_project(tmp_path, text)
    done = tidalctl("trace", "app.py", "--event", "{}", cwd=tmp_path).one_error(code=1)
    assert told in done.err
    assert ("the function raised" in done.err) == ("not JSON" not in told), "one that answers has not raised"
    assert not frames_of_ours(done), done.err
    assert not (tmp_path / "app.trace").exists()


@pytest.mark.parametrize("value", [float("nan"), ["\ud800"]], ids=["not a number", "half a character"])
def test_an_output_that_json_has_no_text_for_is_none(value: object) -> None:
    with pytest.raises(FunctionError, match="not JSON"):
        json_text(value)


def frames_of_ours(done: Done) -> list[str]:
    """Lines of a traceback that show tidalctl's own code, wherever it is checked out."""
    rooms = tuple(f'  File "{Path(__file__).parents[2] / room}/' for room in ("tidalctl", "tracer", "compiler", "artifacts"))
    return [line for line in done.err.splitlines() if line.startswith(rooms)]


def test_a_checkpoint_that_changed_between_trace_and_compile_is_told(decoder: Chain, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    checkpoint = decoder.project / "decoder.safetensors"
    kept, status = checkpoint.read_bytes(), checkpoint.stat()
    try:
        tensors = load_file(checkpoint)
        save_file({**tensors, "layers.0.weight": torch.zeros(96, 96)}, checkpoint)
        done = tidalctl("compile", decoder.trace, "-o", tmp_path / "new.bundle", cwd=tmp_path)
        done.one_error("decoder.safetensors", "changed")
        checkpoint.unlink()
        done = tidalctl("compile", decoder.trace, "-o", tmp_path / "new.bundle", cwd=tmp_path)
        done.one_error("decoder.safetensors", "gone")
        assert list(tmp_path.iterdir()) == []
    finally:
        checkpoint.write_bytes(kept)
        os.utime(checkpoint, ns=(status.st_atime_ns, status.st_mtime_ns))


def flip(path: Path) -> None:
    flip_bit(path, path.stat().st_size // 2, 6)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


SPOILED = {
    "weights cut": ("weights.safetensors", cut),
    "weights flipped": ("weights.safetensors", flip),
    "skeleton flipped": ("skeleton.pickle", flip),
    "code flipped": ("code/app.py", flip),
    "code gone": ("code/app.py", Path.unlink),
    "prewarm flipped": ("prewarm.json", flip),
    "code pack flipped": ("code.pack", flip),
    "import cache flipped": ("import_cache.bin", flip),
    "manifest flipped": ("manifest.json", flip),
    "manifest cut": ("manifest.json", lambda path: path.write_bytes(path.read_bytes()[:-9])),
    "code planted": ("code/evil.py", lambda path: path.write_text("print('evil')")),
    "code a link": ("code/app.py", lambda path: (path.rename(path.parents[2] / "app.py"), path.symlink_to("../../app.py"))),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_bundle_that_is_not_what_compile_wrote_is_refused(spoiled: Path, case: str) -> None:
    name, spoil = SPOILED[case]
    spoil(spoiled / name)
    run = tidalctl if "flipped" in case else forked
    done = run("run", spoiled, "--event", EVENT, cwd=spoiled.parent).one_error(name)
    assert done.out == ""


def test_where_a_bundle_only_holds_more_than_it_should_verify_says_what_to_remove(spoiled: Path) -> None:
    (spoiled / "code" / "evil.py").touch()
    forked("verify", spoiled, cwd=spoiled.parent).one_error("remove", str(spoiled / "code" / "evil.py"), code=1)
    (spoiled / "prewarm.json").unlink()
    forked("verify", spoiled, cwd=spoiled.parent).one_error("compile the bundle again", code=1)


def test_a_digest_is_shown_whole_however_narrow_the_terminal(decoder: Chain) -> None:
    shown = forked("inspect", decoder.bundle, cwd=decoder.folder, env={"COLUMNS": "60"}).ok().out
    assert decoder.manifest["digest"] in shown


def test_a_manifest_may_not_name_what_unpickling_was_not_allowed_to(spoiled: Path) -> None:
    path = spoiled / "manifest.json"
    manifest = decode_manifest(path.read_bytes(), path)
    import msgspec

    path.write_bytes(encode_manifest(seal(msgspec.structs.replace(manifest, globals=manifest.globals[1:]))))
    done = tidalctl("run", spoiled, "--event", EVENT, cwd=spoiled.parent).one_error("skeleton", manifest.globals[0])
    assert done.out == ""
